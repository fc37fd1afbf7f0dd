//! How fast are the latest values, as an autoscaler asks for them? The built server beside a (small) Kubernetes API with
//! 500 pods, over TLS, by a front proxy that names the autoscaler's user, with a labelSelector, freshness checked, on 8
//! connections that are kept; all 500 pods in one answer, one pod, and discovery. Then Debian's Prometheus, if it is
//! there, with the same 500 series.
//!
//! Not a criterion bench: whole processes, for a few seconds each. Client and server share the machine.

#[path = "../tests/common/fake_kubernetes.rs"]
mod fake_kubernetes;
#[path = "../tests/common/remote_write.rs"]
mod remote_write;
#[path = "common/server.rs"]
mod server;
#[path = "../tests/common/tls.rs"]
mod tls;

use fake_kubernetes::{AUTHENTICATION_CONFIG, FakeKubernetes};
use lookback::kubernetes::certificates::kept_ca_path;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use server::{Running, free_port, start};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tls::{Client, Http, TestCa, Tls};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const PODS: usize = 500;
const CONNECTIONS: usize = 8;
const TIME: Duration = Duration::from_secs(4);
const NAMESPACE: &str = "shop";

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("before the year 292278994")
}

fn pod(number: usize) -> String {
    format!("web-7d4b9c6f5d-{number:05}")
}

/// Reads one answer into `buffer`; its status and where its body begins.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> (u16, usize) {
    buffer.clear();
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        assert!(stream.read_buf(buffer).await.expect("read") > 0, "the connection ended");
    };
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let status = text.split_whitespace().nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    match length {
        Some(length) => {
            buffer.reserve((head + length).saturating_sub(buffer.len()));
            while buffer.len() < head + length {
                assert!(stream.read_buf(buffer).await.expect("read") > 0, "the connection ended");
            }
        }
        None => {
            while !buffer.ends_with(b"0\r\n\r\n") {
                assert!(stream.read_buf(buffer).await.expect("read") > 0, "the connection ended");
            }
        }
    }
    (status, head)
}

/// What came of a load.
struct Figures {
    answers_per_second: f64,
    bytes: usize,
    p50_ms: f64,
    p99_ms: f64,
    server_cpu_us: f64,
}

/// Asks the same on each stream, again and again.
async fn load(streams: Vec<Box<dyn Stream>>, request: &str, server: &Running) -> Figures {
    let (began, cpu) = (Instant::now(), server.cpu_seconds());
    let asking = streams.into_iter().map(|mut stream| {
        let request = request.to_owned();
        tokio::spawn(async move {
            let (mut buffer, mut taken) = (Vec::with_capacity(1 << 18), Vec::new());
            while began.elapsed() < TIME {
                let asked = Instant::now();
                stream.write_all(request.as_bytes()).await.expect("sent");
                let (status, _) = read_answer(&mut stream, &mut buffer).await;
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&buffer));
                taken.push(asked.elapsed().as_secs_f64() * 1e3);
            }
            (taken, buffer.len())
        })
    });
    let (mut taken, mut bytes) = (Vec::new(), 0);
    for asked in asking.collect::<Vec<_>>() {
        let (times, length) = asked.await.expect("asked");
        taken.extend(times);
        bytes = length;
    }
    let seconds = began.elapsed().as_secs_f64();
    taken.sort_by(f64::total_cmp);
    let at = |part: f64| taken[((taken.len() - 1) as f64 * part) as usize];
    Figures {
        answers_per_second: taken.len() as f64 / seconds,
        bytes,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        server_cpu_us: (server.cpu_seconds() - cpu) * 1e6 / taken.len() as f64,
    }
}

fn print(what: &str, figures: &Figures) {
    let Figures { answers_per_second, bytes, p50_ms, p99_ms, server_cpu_us } = figures;
    println!(
        "{what}: {answers_per_second:.0} answers/s of {bytes} B, p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, {server_cpu_us:.0} µs \
         of the server's CPU each"
    );
}

fn written() -> Vec<u8> {
    let at = now_ms();
    let series = |number: usize| {
        let name = pod(number);
        let labels = [("__name__", "rps"), ("app", "web"), ("namespace", NAMESPACE), ("pod", &name)];
        remote_write::series(&labels, &[(at, number as f64 / 8.0)])
    };
    let message = remote_write::message((0..PODS).map(series).collect());
    snap::raw::Encoder::new().compress_vec(&message).expect("compressed")
}

/// Sends the 500 values by remote write.
async fn write(address: SocketAddr) {
    let body = written();
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let head = format!(
        "POST /api/v1/write HTTP/1.1\r\nHost: {address}\r\nContent-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\n\
         X-Prometheus-Remote-Write-Version: 0.1.0\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("answered");
    assert!(answer.starts_with(b"HTTP/1.1 204"), "{}", String::from_utf8_lossy(&answer));
}

async fn fake_cluster(front_ca: &TestCa) -> FakeKubernetes {
    let fake = FakeKubernetes::start().await;
    fake.tell_of_pods_and_nodes();
    let config = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {
        "requestheader-client-ca-file": front_ca.pem(),
        "requestheader-allowed-names": "[\"front-proxy-client\"]",
        "requestheader-username-headers": "[\"X-Remote-User\"]",
        "requestheader-group-headers": "[\"X-Remote-Group\"]",
    }});
    fake.put(AUTHENTICATION_CONFIG, config);
    for number in 0..PODS {
        let pod = json!({"metadata": {"labels": {"app": "web", "tier": "front", "pod-template-hash": "7d4b9c6f5d"}}});
        fake.put(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{}", self::pod(number)), pod);
    }
    fake.allow(|spec| spec["user"] == "system:serviceaccount:kube-system:horizontal-pod-autoscaler");
    fake
}

async fn of_lookback() {
    let front_ca = TestCa::new("front proxy CA");
    let fake = fake_cluster(&front_ca).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (server, plain, secure) = start(dir.path(), &fake.kubeconfig("lookback"), &[]);
    let pem = std::fs::read(kept_ca_path(dir.path())).expect("the CA");
    let client = Client {
        address: secure,
        server_certificate: CertificateDer::from_pem_slice(&pem).expect("a certificate"),
        server_name: "localhost".to_owned(),
        identity: Some(front_ca.client("front-proxy-client")),
        tls: Tls::V1_3,
        http: Http::V1,
    };
    let connect = async || {
        let stream = TcpStream::connect(secure).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        let stream: Box<dyn Stream> = Box::new(client.handshake(stream).await.expect("a handshake"));
        stream
    };
    let request = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: lookback.lookback.svc\r\nAccept: application/vnd.kubernetes.protobuf, */*\r\n\
             X-Remote-User: system:serviceaccount:kube-system:horizontal-pod-autoscaler\r\n\
             X-Remote-Group: system:serviceaccounts\r\nX-Remote-Group: system:authenticated\r\n\r\n"
        )
    };
    let base = format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{NAMESPACE}/pods");
    let all = request(&format!("{base}/%2A/rps?labelSelector=app%3Dweb%2Ctier+in+%28front%2Cback%29"));
    write_when_ready(plain).await;
    // Until the ConfigMap is followed and the pods are listed.
    let began = Instant::now();
    loop {
        let mut stream = connect().await;
        let mut buffer = Vec::new();
        stream.write_all(all.as_bytes()).await.expect("sent");
        let (status, head) = read_answer(&mut stream, &mut buffer).await;
        let list: serde_json::Value = serde_json::from_slice(&buffer[head..]).unwrap_or_default();
        if status == 200 && list["items"].as_array().is_some_and(|items| items.len() == PODS) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{}", String::from_utf8_lossy(&buffer));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let streams = async || {
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            streams.push(connect().await);
        }
        streams
    };
    let one = request(&format!("{base}/{}/rps", pod(7)));
    let discovery = request("/apis/custom.metrics.k8s.io/v1beta2");
    for (what, request) in [
        ("Lookback, all 500 pods by labelSelector", &all),
        ("Lookback, one pod", &one),
        ("Lookback, discovery", &discovery),
    ] {
        print(what, &load(streams().await, request, &server).await);
    }
}

async fn write_when_ready(address: SocketAddr) {
    let began = Instant::now();
    loop {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let request = "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        if answer.starts_with("HTTP/1.1 200") {
            return write(address).await;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "not ready: {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn of_prometheus() {
    let dir = tempfile::tempdir().expect("a directory");
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let config = dir.path().join("prometheus.yml");
    std::fs::write(&config, "global: {}\n").expect("written");
    let process = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .args(["--web.enable-remote-write-receiver", "--log.level=error"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(process) = process else {
        println!("SKIPPED: prometheus is missing: apt-get install prometheus");
        return;
    };
    let server = Running(process);
    let began = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "Prometheus does not listen");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    write(address).await;
    let mut streams: Vec<Box<dyn Stream>> = Vec::new();
    for _ in 0..CONNECTIONS {
        streams.push(Box::new(TcpStream::connect(address).await.expect("connected")));
    }
    let request =
        format!("GET /api/v1/query?query=rps%7Bapp%3D%22web%22%7D HTTP/1.1\r\nHost: {address}\r\n\r\n");
    print("Prometheus, the same 500 series, no TLS", &load(streams, &request, &server).await);
}

fn main() {
    // `cargo test --benches` and the like only want to see that it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads").block_on(async {
        of_lookback().await;
        of_prometheus().await;
    });
}
