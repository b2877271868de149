//! The Unix socket that the driver connects to.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, stream};
use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::server::Connected;
use tracing::warn;

mod authority;
mod client;
use authority::Adapter;
pub use client::{channel, client};

/// Longest path of a Unix socket on Linux, without the final NUL.
const MAX_PATH: usize = 107;
/// Connections that wait to be accepted; one driver makes one.
const BACKLOG: i32 = 128;
/// How long to wait when the process has no file descriptor left for a connection.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Linux would cut the path off.
    #[error("socket {}: the path has more than {MAX_PATH} bytes: choose a shorter --socket-dir", .0.display())]
    TooLong(PathBuf),
    /// Another process answers there.
    #[error("socket {}: another provider is listening there: stop it, or give this one another --provider-name", .0.display())]
    InUse(PathBuf),
    /// Something else has the name.
    #[error("socket {}: the path is taken by something that is not a socket: remove it", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("socket {}: {what}", .path.display())]
    System {
        /// The path.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// A socket that listens. Its file is removed when it is dropped, unless a successor has put its
/// own there.
#[derive(Debug)]
pub struct Bound {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: Option<(u64, u64)>,
}

/// Listens on `path`, for this user only from the first moment.
///
/// A socket file that nobody listens on any more, as a killed process leaves it, is replaced; the
/// driver would otherwise find it and wait for an answer. The folder is made if it is missing.
///
/// # Errors
/// See [`SocketError`]. Must be called inside a tokio runtime.
pub fn bind(path: &Path) -> Result<Bound, SocketError> {
    let system = |what| {
        move |source: io::Error| SocketError::System {
            path: path.to_owned(),
            what,
            source,
        }
    };
    if path.as_os_str().len() > MAX_PATH {
        return Err(SocketError::TooLong(path.to_owned()));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(system("its folder cannot be made"))?;
    }
    remove_stale(path)?;
    let socket = private_socket(path).map_err(|e| system("it cannot be bound")(e.into()))?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    let listener = UnixListener::from_std(listener).map_err(system("it cannot be used"))?;
    let file = fs::symlink_metadata(path).map(|m| (m.dev(), m.ino())).ok();
    Ok(Bound {
        listener,
        path: path.to_owned(),
        file,
    })
}

/// The mode is set before the file exists: Linux gives the file the socket's own mode, so there is
/// no moment at which others could connect, whatever the umask is.
fn private_socket(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let system = |what| {
        move |source: io::Error| SocketError::System {
            path: path.to_owned(),
            what,
            source,
        }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system("it cannot be looked at")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match BlockingStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(system("the stale one cannot be removed"))
        }
        Err(error) => Err(system("whether it is in use cannot be told")(error)),
    }
}

impl Bound {
    /// The connections, for as long as the stream is polled. A connection that cannot be accepted
    /// does not end it.
    pub fn incoming(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        stream::unfold(self, |bound| async {
            loop {
                match bound.listener.accept().await {
                    Ok((stream, _)) => return Some((Ok(Connection::new(stream)), bound)),
                    Err(error) => {
                        warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(OUT_OF_FILES).await;
                    }
                }
            }
        })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let now = fs::symlink_metadata(&self.path)
            .map(|m| (m.dev(), m.ino()))
            .ok();
        if now.is_some() && now == self.file {
            // Nothing is left to tell, and the next bind replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// An accepted connection, through the `:authority` adapter.
#[derive(Debug)]
pub struct Connection<S = UnixStream> {
    stream: S,
    adapter: Adapter,
}

impl<S> Connection<S> {
    /// Wraps a stream from which nothing has been read yet.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            adapter: Adapter::new(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.adapter.rewrite(&mut buffer.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S: Connected> Connected for Connection<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.stream.connect_info()
    }
}
