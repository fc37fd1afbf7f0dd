//! The client against servers that answer on real sockets as servers do when they are well, and when not.

use super::settings::parse_header;
use super::*;
use lookback_storage::{Labels, Sample};
use std::io::Write;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const SOON: Duration = Duration::from_secs(30);

/// A server that gives each connection this answer, byte for byte, and tells what it was sent.
async fn answering(answer: String) -> (ServerUrl, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/prefix", listener.local_addr().expect("an address")).parse().expect("a URL");
    let (told, sent) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut request, mut buffer) = (Vec::new(), [0; 4_096]);
            loop {
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                request.extend_from_slice(&buffer[..read]);
                let text = String::from_utf8_lossy(&request);
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
                let body = text.find("\r\n\r\n").map(|end| request.len() - end - 4);
                let length = length.map_or(0, |length| length.trim().parse().expect("a length"));
                if read == 0 || body.is_some_and(|body| body >= length) {
                    break;
                }
            }
            let _ = told.send(String::from_utf8_lossy(&request).into_owned());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, sent)
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn client(settings: ServerSettings) -> PrometheusClient {
    PrometheusClient::new(settings).expect("a client")
}

fn secret_file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

#[tokio::test]
async fn a_question_carries_who_asks_for_whom() {
    let body = r#"{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["half"]}"#;
    let (url, mut sent) = answering(http("200 OK", body)).await;
    let token = secret_file("first\n");
    let mut settings = ServerSettings::new(url);
    settings.credentials = Some(Credentials::BearerFile(token.path().to_owned()));
    settings.headers.push(parse_header("X-Scope-OrgID: team").expect("a header"));
    settings.fields.push(("nocache".to_owned(), "1".to_owned()));
    let asking = client(settings.clone());
    let answer = asking.query("up{a=\"&\"}", Some(1_500), SOON).await.expect("answered");
    assert_eq!((answer.data, answer.warnings), (Value::Vector(vec![]), vec!["half".to_owned()]));
    let request = sent.recv().await.expect("asked");
    for part in [
        "POST /prefix/api/v1/query?nocache=1 HTTP/1.1\r\n",
        "authorization: Bearer first\r\n",
        "x-scope-orgid: team\r\n",
        "query=up%7Ba%3D%22%26%22%7D&time=1%2E500",
    ] {
        assert!(request.contains(part), "{part}: {request}");
    }
    // The token is read again; a GET carries the question in its URL.
    std::fs::write(token.path(), "second").expect("written");
    asking.query("up", None, SOON).await.expect("answered");
    assert!(sent.recv().await.expect("asked").contains("authorization: Bearer second\r\n"));
    let basic = secret_file("user:pass word");
    settings.credentials = Some(Credentials::BasicFile(basic.path().to_owned()));
    settings.verb = Verb::Get;
    client(settings).query("up", None, SOON).await.expect("answered");
    let request = sent.recv().await.expect("asked");
    assert!(request.starts_with("GET /prefix/api/v1/query?query=up&nocache=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n"), "{request}");
}

#[tokio::test]
async fn a_refusal_says_what_the_server_says() {
    let body = r#"{"status":"error","errorType":"bad_data","error":"parse error: unexpected end"}"#;
    let (url, _sent) = answering(http("400 Bad Request", body)).await;
    let error = client(ServerSettings::new(url.clone())).query("(", None, SOON).await.expect_err("refused");
    let ClientError::Refused { status, kind, reason, .. } = &error else { panic!("{error}") };
    assert_eq!(
        (*status, kind.as_deref(), reason.as_str()),
        (400, Some("bad_data"), "parse error: unexpected end")
    );
    assert!(error.to_string().contains(&url.to_string()) && !error.is_transient(), "{error}");

    let (url, _sent) = answering(http("502 Bad Gateway", "<html>no upstream</html>")).await;
    let error = client(ServerSettings::new(url)).query("up", None, SOON).await.expect_err("refused");
    assert!(error.is_transient() && error.to_string().contains("no upstream"), "{error}");
    let (url, _sent) = answering(http("200 OK", "<html>welcome</html>")).await;
    let error = client(ServerSettings::new(url)).query("up", None, SOON).await.expect_err("no answer");
    assert!(matches!(error, ClientError::Malformed { .. }), "{error}");
}

#[tokio::test]
async fn size_time_and_absence_are_bounds() {
    let body = format!(r#"{{"status":"success","data":[{}]}}"#, vec![r#""a""#; 1_000].join(","));
    let (url, _sent) = answering(http("200 OK", &body)).await;
    let mut settings = ServerSettings::new(url);
    settings.body_bytes_max = 1_000;
    let error = client(settings.clone()).label_names(&[], None, SOON).await.expect_err("too large");
    assert!(matches!(error, ClientError::TooLarge { bytes_max: 1_000, .. }), "{error}");
    settings.body_bytes_max = 10_000;
    let names = client(settings.clone()).label_names(&[], None, SOON).await.expect("answered").data;
    assert_eq!(names.len(), 1_000);

    let (url, _sent) = answering("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{".to_owned()).await;
    let never = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent: ServerUrl =
        format!("http://{}", never.local_addr().expect("an address")).parse().expect("a URL");
    let error = client(ServerSettings::new(url)).query("up", None, SOON).await.expect_err("cut short");
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    let short = Duration::from_millis(50);
    let error = client(ServerSettings::new(silent.clone())).query("up", None, short).await.expect_err("late");
    assert!(matches!(error, ClientError::Timeout { .. }) && error.is_transient(), "{error}");
    drop(never);
    let error = client(ServerSettings::new(silent)).query("up", None, SOON).await.expect_err("gone");
    assert!(matches!(error, ClientError::Unreachable { .. }) && error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_write_says_what_became_of_it() {
    let labels = Labels::new([("__name__", "m")]).expect("valid");
    let message = write_request([(&labels, &[Sample::new(1, 2.0)][..])]);
    let compressed = Bytes::from(snap::raw::Encoder::new().compress_vec(&message).expect("compressed"));
    for (answer, expected) in [
        (http("204 No Content", ""), "taken"),
        (http("400 Bad Request", "out of order sample"), "permanent"),
        (http("429 Too Many Requests", "wait").replace("\r\n\r\n", "\r\nretry-after: 7\r\n\r\n"), "retry"),
    ] {
        let (url, mut sent) = answering(answer).await;
        let written =
            client(ServerSettings::new(url)).remote_write("/api/v1/write", compressed.clone(), SOON).await;
        let meant = match written {
            Ok(()) => "taken",
            Err(WriteError::Permanent { .. }) => "permanent",
            Err(WriteError::Retry { after, .. }) => {
                assert_eq!(after, Some(Duration::from_secs(7)));
                "retry"
            }
            Err(WriteError::TooLarge { .. }) => "too large",
        };
        assert_eq!(meant, expected);
        let request = sent.recv().await.expect("sent");
        for part in ["content-encoding: snappy", "x-prometheus-remote-write-version: 0.1.0"] {
            assert!(request.contains(part), "{request}");
        }
    }
}
