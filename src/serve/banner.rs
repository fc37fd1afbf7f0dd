//! What is said at the start: where it listens, where the data is, what to try.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

/// The text for stdout once requests are served.
pub struct Banner<'a> {
    /// Where the data is.
    pub data_dir: &'a Path,
    /// Where plain HTTP is served.
    pub plain: SocketAddr,
    /// Where HTTPS is served, if it is.
    pub secure: Option<SocketAddr>,
    /// Whether callers of the plain port need credentials.
    pub has_credentials: bool,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = reachable(self.plain);
        writeln!(f, "Lookback {}", env!("CARGO_PKG_VERSION"))?;
        writeln!(f, "  http://{}  push, range reads, health, metrics", self.plain)?;
        if let Some(secure) = self.secure {
            writeln!(f, "  https://{secure}  Kubernetes APIs")?;
        }
        writeln!(f, "  data in {}", self.data_dir.display())?;
        let token = if self.has_credentials { " -H \"Authorization: Bearer $TOKEN\"" } else { "" };
        writeln!(f, "\nTry, in another terminal:")?;
        writeln!(
            f,
            "  curl{token} -d '\"250m\"' http://{plain}/write-metrics/namespaces/default/pods/web-0/cpu"
        )?;
        writeln!(
            f,
            "  curl{token} -G http://{plain}/api/v1/metrics -d workload=web -d namespace=default -d metric=cpu \
             -d step=1m -d start=$(($(date +%s)-600)) -d end=$(($(date +%s)+60))"
        )
    }
}

/// An address that this machine can call: the loopback of the same kind where all are listened on.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        _ => address.ip(),
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_where_and_what_to_try() {
        let banner = Banner {
            data_dir: Path::new("/data"),
            plain: "0.0.0.0:8080".parse().expect("an address"),
            secure: Some("127.0.0.1:6443".parse().expect("an address")),
            has_credentials: true,
        };
        let text = banner.to_string();
        for said in ["http://0.0.0.0:8080", "https://127.0.0.1:6443", "/data", "http://127.0.0.1:8080/write-"]
        {
            assert!(text.contains(said), "{said}: {text}");
        }
        assert_eq!(text.matches("Bearer $TOKEN").count(), 2);
        let open = Banner { has_credentials: false, secure: None, ..banner }.to_string();
        assert!(!open.contains("Bearer") && !open.contains("https"), "{open}");
    }
}
