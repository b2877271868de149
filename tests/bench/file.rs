//! The speed and memory of file encryption, compared with `openssl speed` in the same run.
//!
//! `cargo bench --bench file` prints the table in docs/src/performance.md. Each figure is that of a process of
//! its own, which encrypts or decrypts 1 GiB from and to /dev/shm with a key that needs no call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)] // measures real time

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dew_provider::envelope::{
    DEFAULT_FRAME, Destination, EncryptionContext, Header, NewMessage, OpenMessage, WrappedKey,
    encrypt,
};
use dew_provider::util::secret_bytes::SecretBytes;

const MIB: u64 = 1024 * 1024;
const SIZE: u64 = 1024 * MIB;
const ROUNDS: usize = 5;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|arg| arg == "--child");
    match at.map(|at| &args[at + 1..]) {
        Some([what, input, output, ..]) => child(what, Path::new(input), Path::new(output)),
        _ => measure_all(),
    }
}

/// Does the work of one measurement, and prints its own peak of resident memory in KiB.
fn child(what: &str, input: &Path, output: &Path) {
    let data_key = SecretBytes::new(vec![7; 32]);
    let mut input = File::open(input).unwrap();
    let mut destination = (output != Path::new("-")).then(|| Destination::create(output).unwrap());
    let mut stdout = std::io::stdout();
    if what == "encrypt" {
        let message = NewMessage {
            context: EncryptionContext::new([("purpose".into(), "bench".into())]).unwrap(),
            data_key,
            keys: vec![WrappedKey {
                provider: "bench".into(),
                info: b"key".to_vec(),
                ciphertext: vec![0; 80],
            }],
            frame_length: DEFAULT_FRAME,
        };
        let random = ring::rand::SystemRandom::new();
        match &mut destination {
            Some(file) => encrypt(message, &random, &mut input, file.file()).unwrap(),
            None => encrypt(message, &random, &mut input, &mut stdout).unwrap(),
        };
    } else {
        let header = Header::read(&mut input).unwrap();
        let message = OpenMessage::unlock(header, &data_key).unwrap();
        match &mut destination {
            Some(file) => message.decrypt(&mut input, file.file()).unwrap(),
            None => message.decrypt(&mut input, &mut stdout).unwrap(),
        };
    }
    if let Some(file) = destination {
        file.commit().unwrap();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        println!("{}", peak.unwrap().split_whitespace().next().unwrap());
    }
}

/// What one process did.
struct Run {
    seconds: f64,
    peak: u64,
}

fn run(what: &str, input: &Path, output: &Path) -> Run {
    let started = Instant::now();
    let child = command(what, input, output).output().unwrap();
    let seconds = started.elapsed().as_secs_f64();
    assert!(child.status.success());
    let peak = String::from_utf8(child.stdout).unwrap();
    Run {
        seconds,
        peak: peak.trim().parse::<u64>().unwrap() * 1024,
    }
}

fn command(what: &str, input: &Path, output: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--child", what])
        .args([input, output])
        .stderr(Stdio::inherit());
    command
}

/// Time from the start of a process until its first byte of output.
fn first_byte(what: &str, input: &Path) -> Duration {
    let started = Instant::now();
    let mut child = command(what, input, Path::new("-"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0]).unwrap();
    let elapsed = started.elapsed();
    drop(out);
    child.kill().unwrap();
    child.wait().unwrap();
    elapsed
}

/// Bytes per second of `openssl speed -evp aes-256-gcm` with blocks of 16 KiB, on one core.
fn openssl() -> f64 {
    let args = "speed -seconds 1 -bytes 16384 -mr -evp aes-256-gcm";
    let output = Command::new("openssl").args(args.split(' ')).output();
    let output = output.expect("cannot run openssl");
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("+F:"));
    let line = line.unwrap_or_else(|| panic!("openssl: {text}"));
    line.rsplit(':').next().unwrap().parse().unwrap()
}

/// A folder in memory, removed at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn measure_all() {
    let folder = Folder(PathBuf::from(format!(
        "/dev/shm/dew-provider-bench-{}",
        std::process::id()
    )));
    fs::create_dir(&folder.0).unwrap();
    let [plain, sealed, opened] = ["plain", "sealed", "opened"].map(|name| folder.0.join(name));
    let mut file = File::create(&plain).unwrap();
    let block: Vec<u8> = (0..MIB).map(|at| (at * 31 % 251) as u8).collect();
    for _ in 0..SIZE / MIB {
        file.write_all(&block).unwrap();
    }
    drop(file);
    println!("| what | MB/s | of openssl | peak of resident memory |\n|---|---|---|---|");
    let mut rates: Vec<[f64; 3]> = Vec::new();
    let mut peaks = [0, 0];
    for _ in 0..ROUNDS {
        let limit = openssl();
        let rate = |run: &Run| SIZE as f64 / run.seconds;
        let encrypted = run("encrypt", &plain, &sealed);
        let decrypted = run("decrypt", &sealed, &opened);
        assert_eq!(fs::metadata(&opened).unwrap().len(), SIZE);
        fs::remove_file(&opened).unwrap();
        peaks = [peaks[0].max(encrypted.peak), peaks[1].max(decrypted.peak)];
        rates.push([limit, rate(&encrypted), rate(&decrypted)]);
    }
    let median_of = |figure: fn(&[f64; 3]) -> f64| {
        let mut values: Vec<f64> = rates.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mb = 1e6;
    println!(
        "| `openssl speed -evp aes-256-gcm`, 16 KiB, one core | {:.0} | 1 | |",
        median_of(|[limit, ..]| *limit) / mb
    );
    println!(
        "| encrypt 1 GiB | {:.0} | {:.2} | {:.1} MiB |",
        median_of(|[_, encrypt, _]| *encrypt) / mb,
        median_of(|[limit, encrypt, _]| encrypt / limit),
        peaks[0] as f64 / MIB as f64
    );
    println!(
        "| decrypt 1 GiB | {:.0} | {:.2} | {:.1} MiB |",
        median_of(|[.., decrypt]| *decrypt) / mb,
        median_of(|[limit, _, decrypt]| decrypt / limit),
        peaks[1] as f64 / MIB as f64
    );
    let mut times: Vec<f64> = (0..20)
        .map(|_| first_byte("decrypt", &sealed).as_secs_f64() * 1e3)
        .collect();
    times.sort_by(f64::total_cmp);
    println!(
        "\nStart to first byte of text, decrypting to a pipe: {:.1} ms (p50), {:.1} ms (max)",
        times[10], times[19]
    );
}
