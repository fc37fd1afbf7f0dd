//! A test CA, and an HTTPS client that says exactly which certificate, TLS, HTTP and headers.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use axum::Router;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lookback::http::server::{Limits, run};
use lookback::http::tls::TlsSettings;
use lookback::kubernetes::certificates::ServingCertificate;
use lookback::kubernetes::certificates::crypto_provider;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name by which kube-apiserver's aggregator calls in the captured requests.
pub const SERVICE_NAME: &str = "custom-metrics-apiserver.custom-metrics.svc";

/// What clients that nobody should believe may ask for, besides `Validity::Now`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Valid now and for long.
    Now,
    /// Ended in 2001.
    Expired,
    /// Begins in 2999.
    NotYet,
}

/// A certificate authority.
pub struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl TestCa {
    /// A new one, with this name.
    pub fn new(name: &str) -> Self {
        let mut params = params(&[name], Validity::Now);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its certificate, as a file for `--requestheader-client-ca-file`.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A client certificate with this common name.
    pub fn client(&self, common_name: &str) -> ClientIdentity {
        self.issue(&[common_name], Validity::Now, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The certificate of a server with these names, or addresses.
    pub fn server(&self, names: &[&str]) -> ClientIdentity {
        let mut params = params(names, Validity::Now);
        let named = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        params.subject_alt_names = named.expect("names").subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// A certificate with these common names, in order.
    pub fn issue(
        &self,
        common_names: &[&str],
        validity: Validity,
        purpose: ExtendedKeyUsagePurpose,
    ) -> ClientIdentity {
        let mut params = params(common_names, validity);
        params.extended_key_usages = vec![purpose];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> ClientIdentity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        ClientIdentity { certificate: certificate.der().clone(), key_der: key.serialize_der() }
    }
}

fn params(common_names: &[&str], validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // rcgen keeps one value of each type, so a further common name goes in by its object identifier.
    for (index, name) in common_names.iter().enumerate() {
        let oid = if index == 0 { DnType::CommonName } else { DnType::CustomDnType(vec![2, 5, 4, 3]) };
        params.distinguished_name.push(oid, *name);
    }
    let (from, to) = match validity {
        Validity::Now => (2000, 3000),
        Validity::Expired => (2000, 2001),
        Validity::NotYet => (2999, 3000),
    };
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    params
}

/// A client's certificate and key.
#[derive(Clone)]
pub struct ClientIdentity {
    pub certificate: CertificateDer<'static>,
    pub key_der: Vec<u8>,
}

impl ClientIdentity {
    /// The certificate as a file has it.
    pub fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// The key as a file has it.
    pub fn key_pem(&self) -> String {
        pem("PRIVATE KEY", &self.key_der)
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("text")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Which TLS the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    V1_2,
    V1_3,
}

/// Which HTTP the client speaks, and how it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1, by ALPN.
    V1,
    /// HTTP/1.1 without ALPN.
    V1Unsaid,
    /// HTTP/2, by ALPN.
    V2,
}

/// How to connect.
#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub server_certificate: CertificateDer<'static>,
    pub server_name: String,
    pub identity: Option<ClientIdentity>,
    pub tls: Tls,
    pub http: Http,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub version: Version,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

impl Client {
    pub fn identity(&self, identity: &ClientIdentity) -> Self {
        Self { identity: Some(identity.clone()), ..self.clone() }
    }

    pub fn tls(&self, tls: Tls) -> Self {
        Self { tls, ..self.clone() }
    }

    pub fn http(&self, http: Http) -> Self {
        Self { http, ..self.clone() }
    }

    pub fn server_name(&self, server_name: &str) -> Self {
        Self { server_name: server_name.to_owned(), ..self.clone() }
    }

    /// GETs a path with these headers (`Host` stands for HTTP/2's authority too) on a connection of its own.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers).await
    }

    /// Sends a request without a body on a connection of its own.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.try_send(method, path, headers).await.expect("an answer")
    }

    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let mut connection = self.open().await?;
        let answer = connection.send(method, path, headers).await?;
        Ok(answer)
    }

    /// Connects, for several requests.
    pub async fn open(&self) -> Result<Open, Box<dyn std::error::Error + Send + Sync>> {
        self.open_on(self.handshake(TcpStream::connect(self.address).await?).await?).await
    }

    /// Speaks HTTP on a connection whose handshake is done.
    pub async fn open_on(
        &self,
        stream: TlsStream<TcpStream>,
    ) -> Result<Open, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TokioIo::new(stream);
        let sender = if self.http == Http::V2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(async move { drop(connection.await) });
            Sender::V2(sender)
        } else {
            let (sender, connection) =
                http1::Builder::new().title_case_headers(true).handshake(stream).await?;
            tokio::spawn(async move { drop(connection.await) });
            Sender::V1(sender)
        };
        Ok(Open { sender, server_name: self.server_name.clone() })
    }

    pub async fn handshake(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.handshake_with(Arc::new(self.config()), stream).await
    }

    /// With a [`Self::config`] that remembers sessions from handshake to handshake.
    pub async fn handshake_with(
        &self,
        config: Arc<ClientConfig>,
        stream: TcpStream,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let server_name = ServerName::try_from(self.server_name.clone()).expect("a server name");
        let connector = TlsConnector::from(config);
        let stream = connector.connect(server_name, stream).await?;
        let alpn = stream.get_ref().1.alpn_protocol();
        let expected: Option<&[u8]> = match self.http {
            Http::V1 => Some(b"http/1.1"),
            Http::V1Unsaid => None,
            Http::V2 => Some(b"h2"),
        };
        assert_eq!(alpn, expected);
        Ok(stream)
    }

    pub fn config(&self) -> ClientConfig {
        let version = match self.tls {
            Tls::V1_2 => &rustls::version::TLS12,
            Tls::V1_3 => &rustls::version::TLS13,
        };
        let mut roots = RootCertStore::empty();
        roots.add(self.server_certificate.clone()).expect("a root");
        let builder = ClientConfig::builder_with_provider(crypto_provider())
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(ClientIdentity { certificate, key_der }) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key_der.clone()));
                let key = crypto_provider().key_provider.load_private_key(key).expect("a key");
                // Does not check that they fit, so that a test can send a certificate it has no key of.
                let certified = CertifiedKey::new(vec![certificate.clone()], key);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        config.alpn_protocols = match self.http {
            Http::V1 => vec![b"http/1.1".to_vec()],
            Http::V1Unsaid => Vec::new(),
            Http::V2 => vec![b"h2".to_vec()],
        };
        config
    }
}

/// An open connection.
pub struct Open {
    sender: Sender,
    server_name: String,
}

enum Sender {
    V1(http1::SendRequest<Full<Bytes>>),
    V2(http2::SendRequest<Full<Bytes>>),
}

impl Open {
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, hyper::Error> {
        let host = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = host.map_or(self.server_name.as_str(), |(_, value)| value);
        let mut request = Request::builder().method(method);
        request = match &self.sender {
            Sender::V1(_) => request.uri(path).header("Host", host),
            Sender::V2(_) => request.uri(format!("https://{host}{path}").parse::<Uri>().expect("a path")),
        };
        for (name, value) in headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::new())).expect("a request");
        let response = match &mut self.sender {
            Sender::V1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::V2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        answer(response).await
    }
}

async fn answer(response: Response<hyper::body::Incoming>) -> Result<Answer, hyper::Error> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer { version: parts.version, status: parts.status, headers: parts.headers, body })
}

/// A server on a port of its own.
pub struct ServerUnderTest {
    /// Trusts it, and has no certificate of its own.
    pub client: Client,
    shutdown: Option<oneshot::Sender<()>>,
    /// Ends when the server has.
    pub ended: JoinHandle<()>,
}

impl ServerUnderTest {
    /// Serves this router over TLS, with a certificate made in `data_dir` for [`SERVICE_NAME`].
    pub async fn start(router: Router, data_dir: &Path, limits: Limits) -> Self {
        let now_ms = lookback::clock::Clock::now_ms(&lookback::clock::SystemClock);
        let names = [SERVICE_NAME.to_owned()];
        let certificate = ServingCertificate::self_made(data_dir, &names, now_ms).expect("a certificate");
        let client = Client {
            address: ([127, 0, 0, 1], 0).into(),
            server_certificate: certificate.ca().expect("a CA").clone(),
            server_name: SERVICE_NAME.to_owned(),
            identity: None,
            tls: Tls::V1_3,
            http: Http::V1,
        };
        let tls = TlsSettings::new(certificate).expect("TLS settings");
        Self::start_with(Some(tls), client, router, limits).await
    }

    /// Serves this router without TLS; of its client, only the address means anything.
    pub async fn start_plain(router: Router, limits: Limits) -> Self {
        let client = Client {
            address: ([127, 0, 0, 1], 0).into(),
            server_certificate: CertificateDer::from(Vec::new()),
            server_name: "localhost".to_owned(),
            identity: None,
            tls: Tls::V1_3,
            http: Http::V1,
        };
        Self::start_with(None, client, router, limits).await
    }

    async fn start_with(tls: Option<TlsSettings>, client: Client, router: Router, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (shutdown, asked) = oneshot::channel::<()>();
        let ended = tokio::spawn(run(listener, tls, router, limits, async move { drop(asked.await) }));
        Self { client: Client { address, ..client }, shutdown: Some(shutdown), ended }
    }

    /// Asks it to end.
    pub fn shut_down(&mut self) {
        drop(self.shutdown.take());
    }
}
