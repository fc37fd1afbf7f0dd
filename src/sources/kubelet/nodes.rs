//! Which kubelets there are: the cluster's nodes, and where each is asked.

use super::settings::KubeletSettings;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::watch;

/// Nodes in one page of a list: each is some 10 KB, of which names and addresses are kept.
const PAGE_NODES: u32 = 100;

/// Most kubelets that are asked, as many as Kubernetes supports; others are left out, and that is logged.
pub const NODES_MAX: usize = 5_000;

/// How long changes are gathered before kubelets change.
const SETTLE: Duration = Duration::from_millis(500);

/// By name, `host:port` of each kubelet.
pub type Kubelets = BTreeMap<String, String>;

/// Watches nodes for ever and tells which kubelets there are.
pub(super) async fn follow(client: Client, settings: &KubeletSettings, kubelets: watch::Sender<Kubelets>) {
    let config = Config::default().page_size(PAGE_NODES);
    let mut events = pin!(watcher(Api::<Node>::all(client), config).default_backoff());
    let mut followed = Followed::new(settings);
    loop {
        match tokio::time::timeout(SETTLE, events.next()).await {
            Ok(Some(event)) => followed.take(event),
            Ok(None) => return,
            Err(_) => {
                if std::mem::take(&mut followed.has_changed) {
                    kubelets.send_replace(followed.known.clone());
                }
            }
        }
    }
}

/// What the watch has told so far.
struct Followed<'a> {
    settings: &'a KubeletSettings,
    known: Kubelets,
    listing: Kubelets,
    has_changed: bool,
    is_failing: bool,
    is_full: bool,
}

impl<'a> Followed<'a> {
    fn new(settings: &'a KubeletSettings) -> Self {
        Self {
            settings,
            known: Kubelets::new(),
            listing: Kubelets::new(),
            has_changed: false,
            is_failing: false,
            is_full: false,
        }
    }

    fn take(&mut self, event: Result<Event<Node>, kube::runtime::watcher::Error>) {
        if let Err(error) = &event
            && !self.is_failing
        {
            tracing::warn!(%error, "nodes can't be watched; the kubelets that are known are asked on");
        }
        self.is_failing = event.is_err();
        match event {
            Ok(Event::Init) => self.listing.clear(),
            Ok(Event::InitApply(node)) => {
                if let Some((name, address)) = self.kubelet(&node) {
                    self.listing.insert(name, address);
                }
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut self.listing);
                self.has_changed |= listed != self.known;
                self.known = listed;
            }
            Ok(Event::Apply(node)) => match self.kubelet(&node) {
                Some((name, address)) => {
                    let before = self.known.insert(name, address.clone());
                    self.has_changed |= before.as_ref() != Some(&address);
                }
                None => self.gone(&node),
            },
            Ok(Event::Delete(node)) => self.gone(&node),
            Err(_) => {}
        }
    }

    fn gone(&mut self, node: &Node) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        self.has_changed |= self.known.remove(name).is_some();
    }

    /// Name and address of a node's kubelet; `None`: it has no address yet, or there are too many.
    fn kubelet(&mut self, node: &Node) -> Option<(String, String)> {
        let name = node.metadata.name.clone()?;
        let count = self.known.len().max(self.listing.len());
        if count >= NODES_MAX && !self.known.contains_key(&name) {
            if !std::mem::replace(&mut self.is_full, true) {
                tracing::error!(
                    nodes_max = NODES_MAX,
                    "too many nodes: the usage of the others is not collected"
                );
            }
            return None;
        }
        Some((name, address(node, self.settings)?))
    }
}

fn address(node: &Node, settings: &KubeletSettings) -> Option<String> {
    let status = node.status.as_ref()?;
    let addresses = status.addresses.as_deref().unwrap_or_default();
    let of_type = |kind: &String| addresses.iter().find(|address| address.type_ == *kind);
    let host = &settings.address_types.iter().find_map(of_type)?.address;
    let in_status = || {
        let endpoint = status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref()?;
        u16::try_from(endpoint.port).ok().filter(|port| *port != 0)
    };
    let port = settings.use_node_status_port.then(in_status).flatten().unwrap_or(settings.port);
    let is_v6 = host.parse::<std::net::Ipv6Addr>().is_ok();
    Some(if is_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, addresses: &[(&str, &str)], port: i32) -> Node {
        let addresses: Vec<_> = addresses.iter().map(|(t, a)| json!({"type": t, "address": a})).collect();
        let status = json!({"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}});
        serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).expect("a node")
    }

    #[test]
    fn a_kubelet_is_asked_at_the_address_that_is_preferred() {
        let both = node("n", &[("Hostname", "n.local"), ("InternalIP", "10.0.0.1")], 4_444);
        let mut settings = KubeletSettings::default();
        assert_eq!(address(&both, &settings).as_deref(), Some("10.0.0.1:10250"));
        settings.address_types = vec!["InternalDNS".to_owned(), "Hostname".to_owned()];
        settings.use_node_status_port = true;
        assert_eq!(address(&both, &settings).as_deref(), Some("n.local:4444"));
        settings.address_types = vec!["ExternalIP".to_owned()];
        assert_eq!(address(&both, &settings), None, "there is none of this type");
        settings = KubeletSettings { port: 1, ..KubeletSettings::default() };
        assert_eq!(
            address(&node("n", &[("InternalIP", "fd00::1")], 0), &settings).as_deref(),
            Some("[fd00::1]:1")
        );
        settings.use_node_status_port = true;
        let without_port = node("n", &[("InternalIP", "10.0.0.1")], 0);
        assert_eq!(address(&without_port, &settings).as_deref(), Some("10.0.0.1:1"), "no port in the status");
        assert_eq!(address(&Node::default(), &settings), None);
    }

    #[test]
    fn nodes_come_change_and_go() {
        let settings = KubeletSettings::default();
        let mut followed = Followed::new(&settings);
        let at = |name: &str, ip: &str| node(name, &[("InternalIP", ip)], 0);
        let mut after = |event| {
            followed.take(Ok(event));
            let told: Vec<_> = followed.known.iter().map(|(name, at)| format!("{name} {at}")).collect();
            (std::mem::take(&mut followed.has_changed), told.join(", "))
        };
        after(Event::Init);
        assert_eq!(after(Event::InitApply(at("a", "10.0.0.1"))), (false, String::new()), "not listed whole");
        assert_eq!(after(Event::InitDone), (true, "a 10.0.0.1:10250".to_owned()));
        assert!(!after(Event::Apply(at("a", "10.0.0.1"))).0, "a heartbeat changes nothing");
        let (changed, told) = after(Event::Apply(at("a", "10.0.0.2")));
        assert!(changed && told == "a 10.0.0.2:10250", "{told}");
        assert_eq!(after(Event::Apply(Node { status: None, ..at("a", "") })), (true, String::new()));
        after(Event::Apply(at("b", "10.0.0.3")));
        assert_eq!(after(Event::Delete(at("b", ""))), (true, String::new()));
        after(Event::Init);
        after(Event::InitApply(at("c", "10.0.0.4")));
        assert_eq!(after(Event::InitDone), (true, "c 10.0.0.4:10250".to_owned()));
    }
}
