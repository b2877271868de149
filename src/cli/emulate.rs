//! `dew-provider emulate`.

use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use http::StatusCode;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::sim::huawei::{
    Account, Config, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY, Emulator,
    LatestMeans, Rights, TokenMode,
};
use crate::util::clock::Clock;

const AFTER_HELP: &str = r#"Example:
  dew-provider emulate --state /tmp/cloud.json
  curl -X POST http://127.0.0.1:7780/_emulator/faults \
    -d '{"match": {"operation": "ShowSecretVersion"}, "times": 2, "fault": {"status": 429, "retry_after": 1}}'

Control, unsigned (keep the address on loopback):
  POST, GET, DELETE /_emulator/faults      rules {match, times, fault}; match: operation, secret,
                                           key, project, region, after; fault: status, code, message,
                                           retry_after, delay_ms, reset, garbage (json|html),
                                           truncate, wrong_content_length,
                                           slow_body {chunk_bytes, delay_ms},
                                           clock_skew_seconds, expire_tokens
  GET, DELETE /_emulator/calls             the signed calls received
  PUT /_emulator/secrets/{name}/state      {"state": "DISABLED"}
  PUT /_emulator/clock                     {"offset_seconds": 1200}"#;

/// Flags of `emulate`.
#[derive(Args, Clone)]
#[command(after_help = AFTER_HELP)]
pub struct EmulateArgs {
    /// Address to listen on
    #[arg(long, env = "DEW_EMULATE_LISTEN", default_value = "127.0.0.1:7780", value_parser = super::serve::address)]
    listen: SocketAddr,
    /// File for the secrets and keys with their values, so that they survive a restart; in memory only if not set
    #[arg(long, env = "DEW_EMULATE_STATE", value_name = "FILE")]
    state: Option<PathBuf>,
    /// Access key of the account
    #[arg(long, env = "DEW_EMULATE_ACCESS_KEY", default_value = DEMO_ACCESS_KEY)]
    access_key: String,
    /// Secret key of the account; never use a real one
    #[arg(long, env = "DEW_EMULATE_SECRET_KEY", default_value = DEMO_SECRET_KEY, hide_env_values = true)]
    secret_key: String,
    /// Region of the account's project
    #[arg(long, env = "DEW_EMULATE_REGION", default_value = DEMO_REGION)]
    region: String,
    /// Project ID of the account in that region
    #[arg(long, env = "DEW_EMULATE_PROJECT_ID", default_value = DEMO_PROJECT)]
    project_id: String,
    /// Version that latest returns if the newest version does not hold SYSCURRENT
    #[arg(
        long,
        env = "DEW_EMULATE_LATEST",
        value_enum,
        default_value = "syscurrent"
    )]
    latest: LatestMeans,
    /// HTTP status for a secret that does not exist
    #[arg(long, env = "DEW_EMULATE_NOT_FOUND", default_value = "404", value_parser = ["404", "400"])]
    not_found: String,
    /// HTTP status of a successful DeleteSecret
    #[arg(long, env = "DEW_EMULATE_DELETE_STATUS", default_value = "204", value_parser = ["204", "200"])]
    delete_status: String,
    /// How the metadata service treats session tokens
    #[arg(
        long,
        env = "DEW_EMULATE_METADATA_TOKEN",
        value_enum,
        default_value = "optional"
    )]
    metadata_token: TokenMode,
    /// Return no keys from the metadata service, as on an ECS node without an agency
    #[arg(long, env = "DEW_EMULATE_NO_AGENCY")]
    no_agency: bool,
    /// KMS calls per second, such as 20, beyond which they fail with 429; no limit if not set
    #[arg(long, env = "DEW_EMULATE_KMS_QPS", value_name = "N")]
    kms_qps: Option<NonZeroU32>,
    /// Do not lock the access key after 5 rejected requests in a row
    #[arg(long, env = "DEW_EMULATE_NO_KEY_LOCK")]
    no_key_lock: bool,
}

/// Serves until SIGTERM or SIGINT.
pub async fn run(args: EmulateArgs) -> Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}; choose another --listen", args.listen))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let account = Account {
        access_key: args.access_key.clone(),
        secret_key: args.secret_key.clone().into(),
        name: "demo".to_owned(),
        projects: [(args.region.clone(), args.project_id.clone())].into(),
        rights: Rights::default(),
    };
    let config = Config {
        state: args.state.clone(),
        accounts: vec![account],
        latest: args.latest,
        not_found: StatusCode::from_bytes(args.not_found.as_bytes())?,
        delete_status: StatusCode::from_bytes(args.delete_status.as_bytes())?,
        metadata_token: args.metadata_token,
        agency: !args.no_agency,
        region: args.region.clone(),
        kms_qps: args.kms_qps,
        lock_keys: !args.no_key_lock,
        log_calls: true,
    };
    let emulator = Emulator::start(listener, config, Clock::system())?;
    // The emulator also runs if standard output is closed.
    let _ = std::io::stdout().write_all(greeting(&args, &emulator.url()).as_bytes());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    emulator.shutdown().await;
    Ok(())
}

/// How to use the emulator. Shows the secret key only if it is the default one.
fn greeting(args: &EmulateArgs, url: &str) -> String {
    let secret_key = if args.secret_key == DEMO_SECRET_KEY {
        DEMO_SECRET_KEY
    } else {
        "(as configured)"
    };
    format!(
        "Emulated Huawei Cloud\n\
         CSMS, KMS, IAM, metadata  {url}\n\
         region, project           {}, {}\n\
         access key                {}\n\
         secret key                {secret_key}\n\
         To make the next two reads fail:\n  \
         curl -X POST {url}/_emulator/faults -d '{{\"match\": {{\"operation\": \"ShowSecretVersion\"}}, \"times\": 2, \"fault\": {{\"status\": 429}}}}'\n",
        args.region, args.project_id, args.access_key
    )
}
