//! Certificates made for one test, and a way to a relay that speaks TLS for clients that do not.
//!
//! A [`Tunnel`] takes plain connections and passes their bytes on through TLS, from the address that the client comes from. It
//! passes on an end and a reset as what they are, so that a test for plain connections says the same about connections with TLS.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_io::Async;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use futures_rustls::TlsConnector;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use socket2::{Domain, SockRef, Socket, Type};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::connect_from;

/// The name that certificates are for if nothing else is said.
pub const NAME: &str = "relay.example.com";

/// A certificate authority of the test's own.
pub struct Ca {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

/// A chain and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Pem {
    pub chain: String,
    pub key: String,
}

impl Pem {
    /// Writes both into a directory, as a relay wants to find them.
    pub fn write(&self, directory: &Path) -> Files {
        let files = Files { certificate: directory.join("cert.pem"), key: directory.join("key.pem") };
        replace(&files.certificate, &self.chain, 0o644);
        replace(&files.key, &self.key, 0o600);
        files
    }
}

/// Where a certificate and its key are.
#[derive(Clone, Debug)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    /// The section that names them.
    pub fn section(&self) -> String {
        format!(
            "[tls]\nmode = \"files\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
            self.certificate.display(),
            self.key.display()
        )
    }
}

/// Writes a file with a mode, in one step for whoever reads it meanwhile.
pub fn replace(path: &Path, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;

    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("writes");
    std::fs::set_permissions(&beside, PermissionsExt::from_mode(mode)).expect("has its mode");
    std::fs::rename(&beside, path).expect("takes its place");
}

impl Ca {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("authority {:x}", super::random()));
        Self { certificate: params.self_signed(&key).expect("a certificate"), key }
    }

    /// Its certificate, which clients trust.
    pub fn root(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for these names.
    pub fn issue(&self, names: &[&str]) -> Pem {
        self.issue_with(names, &KeyPair::generate().expect("a key"), |_| ())
    }

    /// One that holds from `begin` on for `lifetime`.
    pub fn issue_for(&self, names: &[&str], begin: SystemTime, lifetime: Duration) -> Pem {
        self.issue_with(names, &KeyPair::generate().expect("a key"), |params| {
            params.not_before = begin.into();
            params.not_after = (begin + lifetime).into();
        })
    }

    /// With a key of the test's own, and whatever else is to be different.
    pub fn issue_with(
        &self,
        names: &[&str],
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pem {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        let certificate = params.signed_by(key, &self.certificate, &self.key).expect("a certificate");
        Pem { chain: certificate.pem(), key: key.serialize_pem() }
    }

    /// A client that trusts it.
    pub fn client(&self) -> ClientConfig {
        trusting(&self.root())
    }

    /// One that speaks these versions only.
    pub fn client_of(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        trusting_with(&self.root(), versions)
    }
}

/// A client that trusts these certificates in PEM.
pub fn trusting(roots: &str) -> ClientConfig {
    trusting_with(roots, rustls::DEFAULT_VERSIONS)
}

fn trusting_with(roots: &str, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(root.expect("a root")).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(store)
        .with_no_client_auth()
}

/// Takes connections without TLS for somebody who wants them with it, until it is dropped.
pub struct Tunnel {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Tunnel {
    pub fn to(target: SocketAddr, client: ClientConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("an address");
        let ended = Arc::new(AtomicBool::new(false));
        let connector = TlsConnector::from(Arc::new(client));
        std::thread::spawn({
            let ended = Arc::clone(&ended);
            move || {
                for near in listener.incoming().map_while(Result::ok) {
                    if ended.load(Ordering::Acquire) {
                        return;
                    }
                    let connector = connector.clone();
                    std::thread::spawn(move || future::block_on(pass_on(near, target, &connector)));
                }
            }
        });
        Self { address, ended }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
    }
}

async fn pass_on(near: TcpStream, target: SocketAddr, connector: &TlsConnector) {
    let Ok(far) = dial(&near, target) else {
        reset(&near);
        return;
    };
    let near = smol::net::TcpStream::from(Async::new(near).expect("async"));
    let far = smol::net::TcpStream::from(Async::new(far).expect("async"));
    let name = ServerName::try_from(NAME).expect("a name");
    let Ok(tls) = connector.connect(name, far.clone()).await else {
        reset(&near);
        return;
    };
    let (mut from_far, mut to_far) = smol::io::split(tls);
    // Who resets a connection may have said something before.
    let (is_heard_out, is_broken) = (Cell::new(false), Cell::new(false));
    let up = async {
        let mut buf = vec![0; 16 * 1024];
        let mut reader = near.clone();
        loop {
            match reader.read(&mut buf).await? {
                0 if is_broken.get() => return Err(io::ErrorKind::ConnectionReset.into()),
                0 => {
                    is_heard_out.set(true);
                    return to_far.close().await;
                }
                count => {
                    // A relay that hung up may have said why: the other direction tells.
                    if to_far.write_all(&buf[..count]).await.is_err() || to_far.flush().await.is_err() {
                        is_heard_out.set(true);
                        return Ok(());
                    }
                }
            }
        }
    };
    let down = async {
        let mut buf = vec![0; 16 * 1024];
        let mut writer = near.clone();
        loop {
            match from_far.read(&mut buf).await {
                Ok(0) => return near.shutdown(Shutdown::Write),
                Ok(count) => {
                    if let Err(error) = writer.write_all(&buf[..count]).await {
                        if is_heard_out.get() {
                            return Err(error);
                        }
                        is_broken.set(true);
                        return future::pending().await;
                    }
                }
                // The end without a goodbye is an end.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return near.shutdown(Shutdown::Write);
                }
                Err(error) => return Err(error),
            }
        }
    };
    if future::try_zip(up, down).await.is_err() {
        reset(&near);
        reset(&far);
    }
}

/// Bytes that the kernel may hold for a tunnel on the way from the relay, each side.
const NARROW: usize = 8 * 1024;

/// A connection from where the client is.
fn dial(near: &TcpStream, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // What a tunnel holds, a test would look for in the relay.
    socket.set_recv_buffer_size(NARROW)?;
    socket.set_send_buffer_size(8 * NARROW)?;
    SockRef::from(near).set_send_buffer_size(NARROW)?;
    SockRef::from(near).set_recv_buffer_size(8 * NARROW)?;
    socket.bind(&SocketAddr::from((near.peer_addr()?.ip(), 0)).into())?;
    socket.connect(&target.into())?;
    near.set_nodelay(true)?;
    let far = TcpStream::from(socket);
    far.set_nodelay(true)?;
    Ok(far)
}

/// The close of the socket will be a reset.
fn reset(socket: &impl AsFd) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// A connection with TLS, blocking, with a deadline on every read and write.
pub struct Secure(StreamOwned<ClientConnection, TcpStream>);

impl Secure {
    /// Connects and makes the handshake, as a client that asks for `name`.
    ///
    /// # Errors
    /// What the handshake failed with.
    pub fn connect(address: SocketAddr, name: &str, client: &Arc<ClientConfig>) -> io::Result<Self> {
        Self::over(connect_from(Ipv4Addr::LOCALHOST, address), name, client)
    }

    /// The same over a connection that is there already.
    ///
    /// # Errors
    /// As for [`Self::connect`].
    pub fn over(mut stream: TcpStream, name: &str, client: &Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut tls = ClientConnection::new(Arc::clone(client), name).expect("a client");
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(Self(StreamOwned::new(tls, stream)))
    }

    /// What was negotiated, what the relay showed, and so on.
    pub fn tls(&self) -> &ClientConnection {
        &self.0.conn
    }

    /// Sends a request and reads the whole answer, to the end of the connection.
    pub fn ask(mut self, request: &str) -> String {
        self.0.write_all(request.as_bytes()).expect("takes the request");
        let mut answer = Vec::new();
        // The end may come without a goodbye if the relay was told to be quick.
        let _ = self.0.read_to_end(&mut answer);
        String::from_utf8(answer).expect("an answer in UTF-8")
    }

    /// The status of the answer to `GET /healthz` for this host.
    pub fn health(self, host: &str) -> String {
        let answer = self.ask(&format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// The end of the certificate that the relay showed.
    pub fn certificate_ends(&self) -> i64 {
        let shown = self.0.conn.peer_certificates().expect("a certificate").first().expect("a certificate");
        let (_, parsed) = X509Certificate::from_der(shown).expect("a certificate");
        parsed.validity().not_after.timestamp()
    }

    /// For whoever speaks something else through it.
    pub fn into_stream(self) -> StreamOwned<ClientConnection, TcpStream> {
        self.0
    }
}
