//! The other side of the test authority: a client of `rustls-acme`, a server that presents challenge certificates, and
//! requests by hand, for what that client would never send.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails here fails the test")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use data_encoding::BASE64URL_NOPAD;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::EcdsaKeyPair;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, Stream, StreamOwned,
};
use rustls_acme::acme::{
    Account, AcmeError, Auth, AuthStatus, ChallengeType, Directory, Identifier, Order, OrderStatus,
};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::Authority;
use crate::support::http::Answer;
use crate::support::{DEADLINE, eventually};

/// Drives a request to its end.
///
/// # Panics
/// When it has not come to it by the deadline: the client itself would wait for ever.
pub fn within<T>(request: impl Future<Output = T>) -> T {
    smol::block_on(smol::future::or(request, async {
        smol::Timer::after(DEADLINE).await;
        panic!("not answered within {DEADLINE:?}")
    }))
}

fn roots(pem: &str) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")).expect("a root");
    Arc::new(roots)
}

/// What a client of the authority connects with.
pub fn client_config(authority: &Authority) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(&authority.web_root_pem()))
        .with_no_client_auth();
    Arc::new(config)
}

/// An authority that validates at a responder, and a client of it.
pub fn world() -> (Authority, Responder, Client) {
    let (authority, responder) = (Authority::start(), Responder::start());
    authority.validate_at(responder.address);
    let client = Client::new(&authority);
    (authority, responder, client)
}

/// A client with an account.
pub struct Client {
    pub config: Arc<ClientConfig>,
    pub account: Account,
}

impl Client {
    /// One with a new key.
    pub fn new(authority: &Authority) -> Self {
        Self::with_key(authority, &Account::generate_key_pair()).expect("an account")
    }

    pub fn with_key(authority: &Authority, key: &[u8]) -> Result<Self, AcmeError> {
        let config = client_config(authority);
        let directory = within(Directory::discover(&config, authority.directory()))?;
        let contact = ["mailto:keeper@relay.example"];
        let account = within(Account::create_with_keypair(&config, directory, &contact, key))?;
        Ok(Self { config, account })
    }

    pub fn new_order(&self, names: &[&str]) -> Result<(String, Order), AcmeError> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        within(self.account.new_order(&self.config, names))
    }

    pub fn order(&self, url: &str) -> Order {
        within(self.account.order(&self.config, url)).expect("an order")
    }

    pub fn auth(&self, url: &str) -> Auth {
        within(self.account.auth(&self.config, url)).expect("an authorization")
    }

    /// Presents the right certificate for an authorization, and triggers its validation.
    pub fn prove(&self, url: &str, responder: &Responder) {
        let auth = self.auth(url);
        let Identifier::Dns(name) = auth.identifier;
        let (challenge, certified) =
            self.account.tls_alpn_01(&auth.challenges, name.clone()).expect("a challenge");
        responder.present(&name, certified);
        within(self.account.challenge(&self.config, &challenge.url)).expect("triggers");
    }

    /// An authorization once it is decided.
    pub fn decided(&self, url: &str) -> Auth {
        eventually("the authorization is decided", || {
            let auth = self.auth(url);
            if matches!(auth.status, AuthStatus::Pending) { Err("pending".to_owned()) } else { Ok(auth) }
        })
    }

    /// Has a validation fail while `certified` is presented; the type and the detail of the problem.
    pub fn failure(&self, responder: &Responder, certified: Option<CertifiedKey>) -> (String, String) {
        let (url, order) = self.new_order(&["relay.example"]).expect("an order");
        if let Some(certified) = certified {
            responder.present("relay.example", certified);
        }
        let tls_alpn_01 = |auth: Auth| {
            let mut challenges = auth.challenges.into_iter();
            challenges.find(|one| one.typ == ChallengeType::TlsAlpn01).expect("a challenge")
        };
        let auth = &order.authorizations[0];
        let challenge = tls_alpn_01(self.auth(auth));
        within(self.account.challenge(&self.config, &challenge.url)).expect("triggers");
        let decided = self.decided(auth);
        assert!(matches!(decided.status, AuthStatus::Invalid));
        assert_eq!(self.order(&url).status, OrderStatus::Invalid);
        let problem = tls_alpn_01(decided).error.expect("a problem");
        let kind = problem.typ.expect("a type").replace("urn:ietf:params:acme:error:", "");
        (kind, problem.detail.expect("a detail"))
    }

    /// An order all of whose names are proved.
    pub fn ready_order(&self, names: &[&str], responder: &Responder) -> (String, Order) {
        let (url, order) = self.new_order(names).expect("an order");
        for auth in &order.authorizations {
            self.prove(auth, responder);
            assert!(matches!(self.decided(auth).status, AuthStatus::Valid), "{auth}");
        }
        let order = self.order(&url);
        assert_eq!(order.status, OrderStatus::Ready);
        (url, order)
    }

    /// The protected header of a request to `url`, with a nonce of its own.
    pub fn header(&self, url: &str) -> Value {
        let nonce = within(self.account.directory.nonce(&self.config)).expect("a nonce");
        json!({ "alg": "ES256", "kid": self.account.kid, "nonce": nonce, "url": url })
    }

    pub fn finalize(&self, order: &Order, csr: &[u8]) -> Result<Order, AcmeError> {
        within(self.account.finalize(&self.config, &order.finalize, csr))
    }

    /// A certificate for these names, with what leads to its root, and its key.
    pub fn certified(
        &self,
        names: &[&str],
        responder: &Responder,
    ) -> (Vec<CertificateDer<'static>>, KeyPair) {
        let (_, order) = self.ready_order(names, responder);
        let key = KeyPair::generate().unwrap();
        let OrderStatus::Valid { certificate } =
            self.finalize(&order, &csr(names, &key)).expect("finalizes").status
        else {
            panic!("the order is not valid");
        };
        let pem = within(self.account.certificate(&self.config, certificate)).expect("a certificate");
        (chain(&pem), key)
    }
}

/// A request for a certificate for these names, as the authority wants it.
pub fn csr(names: &[&str], key: &KeyPair) -> Vec<u8> {
    let mut params = unsigned(names, Vec::new());
    params.distinguished_name = DistinguishedName::new();
    params.serialize_request(key).unwrap().der().to_vec()
}

pub fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().expect("certificates")
}

/// Whether a certificate is for this key.
pub fn is_for(certificate: &[u8], key: &KeyPair) -> bool {
    X509Certificate::from_der(certificate).unwrap().1.public_key().raw == key.public_key_der()
}

/// Whether somebody who trusts `root_pem` takes these certificates from a server with this name.
pub fn trusted(chain: &[CertificateDer<'_>], root_pem: &str, name: &str) -> bool {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(root_pem), Arc::new(default_provider()));
    let name = ServerName::try_from(name).unwrap();
    let (leaf, between) = chain.split_first().expect("a certificate");
    verifier.build().unwrap().verify_server_cert(leaf, between, &name, &[], UnixTime::now()).is_ok()
}

/// A certificate for these names that has itself as its issuer, and its own signature.
pub fn self_signed(names: &[&str], extensions: Vec<CustomExtension>) -> CertifiedKey {
    let key = KeyPair::generate().unwrap();
    let certificate = unsigned(names, extensions).self_signed(&key).unwrap();
    certified_key(&certificate, &key)
}

/// A certificate for this name that has itself as its issuer, and another's signature.
pub fn signed_by_another(name: &str) -> CertifiedKey {
    let (key, another) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let issuer = unsigned(&[name], Vec::new()).self_signed(&another).unwrap();
    let certificate = unsigned(&[name], Vec::new()).signed_by(&key, &issuer, &another).unwrap();
    certified_key(&certificate, &key)
}

fn unsigned(names: &[&str], extensions: Vec<CustomExtension>) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.custom_extensions = extensions;
    params
}

fn certified_key(certificate: &rcgen::Certificate, key: &KeyPair) -> CertifiedKey {
    let key = any_ecdsa_type(&PrivatePkcs8KeyDer::from(key.serialize_der()).into()).unwrap();
    CertifiedKey::new(vec![certificate.der().clone()], key)
}

/// What a client of TLS said first: the name and the protocols.
type Hello = (Option<String>, Vec<Vec<u8>>);

#[derive(Debug, Default)]
struct Presented {
    certificates: Mutex<HashMap<String, Arc<CertifiedKey>>>,
    hellos: Mutex<Vec<Hello>>,
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_owned);
        let protocols = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
        self.hellos.lock().unwrap().push((name.clone(), protocols));
        self.certificates.lock().unwrap().get(&name?).cloned()
    }
}

/// A server that does nothing but present certificates.
pub struct Responder {
    pub address: SocketAddr,
    presented: Arc<Presented>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// One in the protocol that the challenge is made for.
    pub fn start() -> Self {
        Self::speaking(&[b"acme-tls/1"])
    }

    pub fn speaking(protocols: &[&[u8]]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let presented = Arc::new(Presented::default());
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(presented.clone());
        config.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
        let config = Arc::new(config);
        let thread = std::thread::spawn(move || {
            for mut stream in listener.incoming().map(Result::unwrap) {
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                // Whoever stops it says so in a way in which TLS never begins.
                if stream.peek(&mut [0]).is_ok_and(|length| length == 0) {
                    return;
                }
                let mut tls = ServerConnection::new(config.clone()).unwrap();
                // Until the authority has seen enough, or has been refused.
                let _ = Stream::new(&mut tls, &mut stream).read(&mut [0]);
            }
        });
        Self { address, presented, thread: Some(thread) }
    }

    /// From now on presents this to whoever asks for this name.
    pub fn present(&self, name: &str, certified: CertifiedKey) {
        self.presented.certificates.lock().unwrap().insert(name.to_owned(), Arc::new(certified));
    }

    /// What everybody who connected said first.
    pub fn hellos(&self) -> Vec<Hello> {
        self.presented.hellos.lock().unwrap().clone()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        drop(TcpStream::connect(self.address));
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking(), "the responder has panicked");
    }
}

/// A signed request as it is sent.
pub fn sign(key: &EcdsaKeyPair, protected: &Value, payload: &str) -> Value {
    let protected = BASE64URL_NOPAD.encode(protected.to_string().as_bytes());
    let payload = BASE64URL_NOPAD.encode(payload.as_bytes());
    let signature = key.sign(&SystemRandom::new(), format!("{protected}.{payload}").as_bytes()).unwrap();
    json!({
        "protected": protected,
        "payload": payload,
        "signature": BASE64URL_NOPAD.encode(signature.as_ref()),
    })
}

/// Sends a request of its own making to `url` and reads the answer.
pub fn send(config: &Arc<ClientConfig>, method: &str, url: &str, headers: &[&str], body: &str) -> Answer {
    let (host, path) = url.strip_prefix("https://").and_then(|url| url.split_once('/')).expect("a URL");
    let port: u16 = host.strip_prefix("localhost:").and_then(|port| port.parse().ok()).expect("a port");
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connects");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), stream);
    let (length, headers) = (body.len(), headers.join("\r\n"));
    let head = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{headers}");
    tls.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).expect("sends");
    let mut answer = String::new();
    tls.read_to_string(&mut answer).expect("an answer, and that it is the last");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Sends what was signed, with the headers that it should have.
pub fn post(config: &Arc<ClientConfig>, url: &str, signed: &Value) -> Answer {
    let headers = ["User-Agent: by hand", "Content-Type: application/jose+json"];
    send(config, "POST", url, &headers, &signed.to_string())
}

/// What a request was refused with: the status, the type without its prefix, and the detail.
pub fn refusal(answer: &Answer) -> String {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let problem: Value = serde_json::from_str(&answer.body).expect("a problem");
    assert_eq!(problem["status"], answer.status);
    let text = |name: &str| problem[name].as_str().expect("a text").to_owned();
    let kind = text("type").replace("urn:ietf:params:acme:error:", "");
    format!("{} {kind}: {}", answer.status, text("detail"))
}
