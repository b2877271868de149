//! The Unix socket that the driver connects to.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, stream};
use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;
use tracing::warn;

mod authority;
mod body_gate;
mod client;
use authority::AuthorityAdapter;
pub use body_gate::BodyGate;
pub use client::{channel, client};

/// Longest path of a Unix socket on Linux, without the final NUL.
const MAX_PATH: usize = 107;
/// Connections that may wait to be accepted; a driver opens one.
const BACKLOG: i32 = 128;
/// Connections that are open at once; further ones wait. Only root can open any.
const MAX_CONNECTIONS: usize = 128;
/// The wait after a failed accept, for example because no file descriptor was free.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Why a socket cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path is too long for a Unix socket.
    #[error("socket {}: path too long (limit {MAX_PATH} bytes): choose a shorter --socket-dir", .0.display())]
    TooLong(PathBuf),
    /// Another process is listening.
    #[error("socket {}: another provider is listening: stop it, or choose another --provider-name", .0.display())]
    InUse(PathBuf),
    /// The path is something else.
    #[error("socket {}: the path exists and is not a socket: remove it", .0.display())]
    NotASocket(PathBuf),
    /// A system call failed.
    #[error("socket {}: {what}", .path.display())]
    System {
        /// The path.
        path: PathBuf,
        /// What failed.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// A listening socket. Dropping it removes its file, unless a successor has replaced it.
#[derive(Debug)]
pub struct BoundSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: Option<(u64, u64)>,
}

/// Listens on `path`, which from the first moment is accessible only to this user.
///
/// A stale socket file, which a killed process leaves, is replaced; otherwise the driver would find it and
/// wait for a response. Creates the directory if it does not exist.
///
/// # Errors
/// See [`SocketError`]. Must be called inside a tokio runtime.
pub fn bind(path: &Path) -> Result<BoundSocket, SocketError> {
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
        fs::create_dir_all(folder).map_err(system("cannot create its directory"))?;
    }
    remove_stale(path)?;
    let socket = private_socket(path).map_err(|e| system("cannot be bound")(e.into()))?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    let listener = UnixListener::from_std(listener).map_err(system("cannot be used"))?;
    let file = fs::symlink_metadata(path).map(|m| (m.dev(), m.ino())).ok();
    Ok(BoundSocket {
        listener,
        path: path.to_owned(),
        file,
    })
}

/// Sets the mode before the file exists: Linux gives the file the mode of the socket, so others can never
/// connect, whatever the umask.
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
        Err(error) => return Err(system("cannot be examined")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match BlockingStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(system("cannot remove the stale socket"))
        }
        Err(error) => Err(system("cannot determine whether it is in use")(error)),
    }
}

impl BoundSocket {
    /// The accepted connections. A failed accept does not end the stream.
    pub fn incoming(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        stream::unfold((self, permits), |(bound, permits)| async {
            let permit = Arc::clone(&permits).acquire_owned().await.ok();
            loop {
                match bound.listener.accept().await {
                    Ok((stream, _)) => {
                        let connection = Connection {
                            _permit: permit,
                            ..Connection::new(stream)
                        };
                        return Some((Ok(connection), (bound, permits)));
                    }
                    Err(error) => {
                        warn!(%error, "could not accept a connection");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                }
            }
        })
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        let now = fs::symlink_metadata(&self.path)
            .map(|m| (m.dev(), m.ino()))
            .ok();
        if now.is_some() && now == self.file {
            // If this fails, the next bind replaces the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// An accepted connection, through the `:authority` adapter.
#[derive(Debug)]
pub struct Connection<S = UnixStream> {
    stream: S,
    adapter: AuthorityAdapter,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<S> Connection<S> {
    /// Wraps a stream from which nothing has been read yet.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            adapter: AuthorityAdapter::new(),
            _permit: None,
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
