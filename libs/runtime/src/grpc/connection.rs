//! Connections of callers who have shown who they are.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::caller::Names;
use crate::tls::{self, Tls};

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many may be at it at once; more wait to be accepted.
const HANDSHAKES: usize = 256;

/// A connection over mutual TLS.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    names: Names,
}

/// The connections that come to `listener`, once each client has shown its certificate. It ends
/// when nobody reads it any more.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Tls,
) -> ReceiverStream<Result<Connection, io::Error>> {
    let (connections, incoming) = mpsc::channel(HANDSHAKES);
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    tokio::spawn(async move {
        while let Ok(place) = places.clone().acquire_owned().await {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = connections.closed() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                // Out of file descriptors, or a client that has gone already: the listener lives.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (tls, connections) = (tls.clone(), connections.clone());
            tokio::spawn(async move {
                match tokio::time::timeout(HANDSHAKE, shake_hands(&tls, stream)).await {
                    // Nobody takes it any more where the server stops.
                    Ok(Ok(connection)) => drop(connections.send(Ok(connection)).await),
                    Ok(Err(error)) => tracing::warn!(%error, "a caller was refused"),
                    Err(_) => tracing::warn!("a caller took too long to show a certificate"),
                }
                drop(place);
            });
        }
    });
    ReceiverStream::new(incoming)
}

async fn shake_hands(tls: &Tls, stream: TcpStream) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let stream = tls.accept(stream).await?;
    let certificates = stream.get_ref().1.peer_certificates();
    let names = certificates.and_then(<[_]>::first).map(tls::names).unwrap_or_default();
    Ok(Connection { stream, names: Names(names.into()) })
}

impl Connected for Connection {
    type ConnectInfo = Names;

    fn connect_info(&self) -> Names {
        self.names.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
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
}
