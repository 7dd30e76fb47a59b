//! A TCP proxy between two parts, or a part and its database, that can cut what goes through it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// Where a proxy passes connections on to.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// Nowhere: it refuses.
    Nowhere,
    /// An address of this machine.
    Tcp(String),
    /// A socket in a folder.
    Unix(PathBuf),
}

/// A proxy that listens while it is held.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    target: Mutex<Target>,
    /// Every connection ends when it changes.
    cut: watch::Sender<u64>,
    /// How many commits are let through yet before one is cut off from its answer; none are cut at
    /// 0.
    until_cut: AtomicUsize,
    /// How many commits were cut off.
    commits_cut: AtomicUsize,
}

impl Proxy {
    /// Starts a proxy on a free port.
    pub(crate) async fn start(target: Target) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            target: Mutex::new(target),
            cut: watch::Sender::new(0),
            until_cut: AtomicUsize::new(0),
            commits_cut: AtomicUsize::new(0),
        });
        let accepting = Arc::downgrade(&inner);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Some(inner) = accepting.upgrade() else { return };
                tokio::spawn(inner.connect(client));
            }
        });
        Self { address, inner }
    }

    /// Passes new connections on to another target, and ends those that are open.
    pub(crate) fn lead_to(&self, target: Target) {
        *self.inner.target.lock().unwrap() = target;
        self.cut();
    }

    /// Where it passes connections on to.
    pub(crate) fn target(&self) -> Target {
        self.inner.target.lock().unwrap().clone()
    }

    /// Ends every open connection.
    pub(crate) fn cut(&self) {
        self.inner.cut.send_modify(|cut| *cut += 1);
    }

    /// Cuts the `n`th commit from now on off from its answer: the server gets it, the client never
    /// hears of it.
    pub(crate) fn cut_commit(&self, n: usize) {
        self.inner.until_cut.store(n, Ordering::Relaxed);
    }

    /// How many commits were cut off from their answers.
    pub(crate) fn commits_cut(&self) -> usize {
        self.inner.commits_cut.load(Ordering::Relaxed)
    }
}

impl Inner {
    async fn connect(self: Arc<Self>, client: TcpStream) {
        let target = self.target.lock().unwrap().clone();
        drop(client.set_nodelay(true));
        match target {
            Target::Nowhere => {}
            Target::Tcp(address) => {
                if let Ok(server) = TcpStream::connect(address).await {
                    drop(server.set_nodelay(true));
                    self.pass(client, server).await;
                }
            }
            Target::Unix(path) => {
                if let Ok(server) = UnixStream::connect(path).await {
                    self.pass(client, server).await;
                }
            }
        }
    }

    async fn pass(&self, client: TcpStream, server: impl AsyncRead + AsyncWrite + Send) {
        let mut cut = self.cut.subscribe();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = tokio::io::split(server);
        let up = async {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let Ok(count @ 1..) = from_client.read(&mut buffer).await else { return false };
                let is_cut = self.is_cut_here(&buffer[..count]);
                if to_server.write_all(&buffer[..count]).await.is_err() {
                    return false;
                }
                if is_cut {
                    return true;
                }
            }
        };
        let down = async {
            drop(tokio::io::copy(&mut from_server, &mut to_client).await);
        };
        let commit_was_cut = tokio::select! {
            commit_was_cut = up => commit_was_cut,
            () = down => false,
            _ = cut.changed() => false,
        };
        drop((from_client, to_client));
        if commit_was_cut {
            // The server works on what it was sent before it sees the end.
            let mut answer = [0; 1024];
            drop(from_server.read(&mut answer).await);
            self.commits_cut.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether this holds the commit that shall be cut off.
    fn is_cut_here(&self, sent: &[u8]) -> bool {
        // By itself, or with the wait for the disk behind it.
        const COMMIT: [&[u8]; 2] = [b"COMMIT\0", b"COMMIT;"];
        if self.until_cut.load(Ordering::Relaxed) == 0
            || !sent.windows(COMMIT[0].len()).any(|bytes| COMMIT.contains(&bytes))
        {
            return false;
        }
        self.until_cut.fetch_sub(1, Ordering::Relaxed) == 1
    }
}
