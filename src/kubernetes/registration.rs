//! Who owns which group and version: APIServices, and how one changes hands and back.
//!
//! A group and version is served by one APIService, and whoever writes it last has it, with all of the
//! cluster's autoscalers. So Lookback looks before it registers ([`judge`]), and where it takes one over
//! (`take_over`) the former owner is written into an annotation of that same APIService, so that it
//! can be given back (`give_back`) by anyone, from anywhere, whatever became of Lookback.

use super::cluster::reasons;
use k8s_openapi::ByteString;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceSpec, ServiceReference,
};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use std::fmt;
use std::time::Duration;
use thiserror::Error;
use tokio::time::{Instant, sleep};

/// Holds the former `spec` as JSON; `null` where there was no APIService.
pub const FORMER_SPEC_ANNOTATION: &str = "lookback/former-spec";
/// How often it is looked whether an APIService is available.
const AVAILABLE_POLL: Duration = Duration::from_millis(500);

/// The APIs that can be registered, in the order in which they are taken over. The version that autoscalers
/// prefer is last: once it is there they ask it alone.
pub const APIS: [ApiName; 4] = [
    ApiName { group: "custom.metrics.k8s.io", version: "v1beta1", version_priority: 100 },
    ApiName { group: "custom.metrics.k8s.io", version: "v1beta2", version_priority: 200 },
    ApiName { group: "external.metrics.k8s.io", version: "v1beta1", version_priority: 100 },
    ApiName { group: "metrics.k8s.io", version: "v1beta1", version_priority: 100 },
];

/// A group and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiName {
    /// The group.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// Its priority among the versions of the group; the highest is preferred.
    pub version_priority: i32,
}

impl ApiName {
    /// The one whose APIService has this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        APIS.into_iter().find(|api| api.to_string() == name)
    }
}

/// The name of its APIService.
impl fmt::Display for ApiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.version, self.group)
    }
}

/// A Service with its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Who serves an API now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// There is no APIService.
    Nobody,
    /// kube-apiserver itself.
    ApiServer,
    /// A Service.
    Service(ServiceName),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::ApiServer => f.write_str("kube-apiserver"),
            Self::Service(service) => service.fmt(f),
        }
    }
}

/// What is known of an API's registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Which.
    pub api: ApiName,
    /// Who serves it.
    pub owner: Owner,
    /// Whether it is available, where there is a word on that.
    pub is_available: Option<bool>,
    /// Whether it has been taken over from another, who is remembered.
    pub is_taken_over: bool,
}

impl Registered {
    fn of(api: ApiName, found: Option<&APIService>) -> Self {
        let spec = found.and_then(|found| found.spec.as_ref());
        let owner = match (found, spec.and_then(|spec| spec.service.as_ref())) {
            (None, _) => Owner::Nobody,
            (Some(_), None) => Owner::ApiServer,
            (Some(_), Some(service)) => Owner::Service(ServiceName {
                namespace: service.namespace.clone().unwrap_or_default(),
                name: service.name.clone().unwrap_or_default(),
            }),
        };
        let is_taken_over = found.is_some_and(|found| former(found).is_some());
        Self { api, owner, is_available: found.and_then(is_available), is_taken_over }
    }
}

fn is_available(found: &APIService) -> Option<bool> {
    let conditions = found.status.as_ref()?.conditions.as_ref()?;
    let available = conditions.iter().find(|condition| condition.type_ == "Available")?;
    Some(available.status == "True")
}

fn former(found: &APIService) -> Option<&String> {
    found.metadata.annotations.as_ref()?.get(FORMER_SPEC_ANNOTATION)
}

/// Whether an API may be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is free.
    Free,
    /// It is Lookback's.
    Ours,
    /// Another has it.
    Taken,
    /// It is free, but another has an older version of the group: with this one the autoscalers, which ask
    /// the preferred version alone, would leave that other.
    Withheld,
    /// Another has it, and it is to be taken over.
    TakeOver,
}

impl Verdict {
    /// Whether registering it would take autoscalers away from another.
    #[must_use]
    pub const fn is_refused(self) -> bool {
        matches!(self, Self::Taken | Self::Withheld)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Free => "free: can be registered",
            Self::Ours => "Lookback's already",
            Self::Taken => "REFUSED: another's",
            Self::Withheld => {
                "REFUSED: another has the group's other version, and would lose its autoscalers"
            }
            Self::TakeOver => "will be taken over, as --take-over says",
        })
    }
}

/// What may be done about each.
#[must_use]
pub fn judge(registered: &[Registered], ours: &ServiceName, take_over: bool) -> Vec<(Registered, Verdict)> {
    let is_others = |owner: &Owner| *owner != Owner::Nobody && *owner != Owner::Service(ours.clone());
    let group_is_others =
        |group: &str| registered.iter().any(|other| other.api.group == group && is_others(&other.owner));
    let verdict = |one: &Registered| match &one.owner {
        _ if is_others(&one.owner) && take_over => Verdict::TakeOver,
        _ if is_others(&one.owner) => Verdict::Taken,
        Owner::Nobody if group_is_others(one.api.group) && !take_over => Verdict::Withheld,
        Owner::Nobody => Verdict::Free,
        _ => Verdict::Ours,
    };
    registered.iter().map(|one| (one.clone(), verdict(one))).collect()
}

/// Why a registration can't be read or changed.
#[derive(Debug, Error)]
pub enum RegistrationError {
    /// kube-apiserver says no.
    #[error("APIService {api}: {reason}")]
    Kubernetes {
        /// Which.
        api: ApiName,
        /// Its word.
        reason: String,
    },
    /// It did not become available.
    #[error("APIService {api} did not become available within {wait:?}{message}")]
    NotAvailable {
        /// Which.
        api: ApiName,
        /// How long it was waited for.
        wait: Duration,
        /// What kube-apiserver says of it.
        message: String,
    },
    /// The annotation is not what was written.
    #[error("APIService {api}: the annotation {FORMER_SPEC_ANNOTATION} can't be read: {reason}")]
    Former {
        /// Which.
        api: ApiName,
        /// What is wrong.
        reason: String,
    },
}

/// The APIServices of a cluster.
pub struct Registrations(Api<APIService>);

impl Registrations {
    /// Of a cluster.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self(Api::all(client))
    }

    /// Who serves these now.
    ///
    /// # Errors
    /// When kube-apiserver does not say.
    pub async fn read(&self, apis: &[ApiName]) -> Result<Vec<Registered>, RegistrationError> {
        let mut registered = Vec::with_capacity(apis.len());
        for api in apis {
            registered.push(Registered::of(*api, self.get(*api).await?.as_ref()));
        }
        Ok(registered)
    }

    /// Registers an API to a Service and waits until it is available; the former owner is remembered.
    /// Without `ca` the certificate's CA is left to be put in by the running Lookback.
    ///
    /// # Errors
    /// When kube-apiserver refuses, or it does not become available: the caller is to give it back then.
    pub async fn take_over(
        &self,
        api: ApiName,
        to: &ServiceName,
        port: i32,
        ca: Option<&[u8]>,
        wait: Duration,
    ) -> Result<(), RegistrationError> {
        let found = self.get(api).await?;
        let spec = APIServiceSpec {
            ca_bundle: ca.map(|ca| ByteString(ca.to_vec())),
            group: Some(api.group.to_owned()),
            group_priority_minimum: 100,
            insecure_skip_tls_verify: None,
            service: Some(ServiceReference {
                name: Some(to.name.clone()),
                namespace: Some(to.namespace.clone()),
                port: Some(port),
            }),
            version: Some(api.version.to_owned()),
            version_priority: api.version_priority,
        };
        let mut changed = found.clone().unwrap_or_default();
        changed.metadata.name = Some(api.to_string());
        if former(&changed).is_none() {
            let before = found.as_ref().and_then(|found| found.spec.as_ref());
            let before = serde_json::to_string(&before).unwrap_or_else(|_| "null".to_owned());
            let annotations = changed.metadata.annotations.get_or_insert_default();
            annotations.insert(FORMER_SPEC_ANNOTATION.to_owned(), before);
        }
        changed.spec = Some(spec);
        self.write(api, &changed, found.is_some()).await?;
        self.wait_until_available(api, wait).await
    }

    /// Gives an API back to whom it was taken from, or removes it where there was none; `None`: it was
    /// not taken over.
    ///
    /// # Errors
    /// When kube-apiserver refuses, or what was remembered can't be read.
    pub async fn give_back(&self, api: ApiName) -> Result<Option<Owner>, RegistrationError> {
        let Some(mut found) = self.get(api).await? else { return Ok(None) };
        let Some(before) = former(&found).cloned() else { return Ok(None) };
        let before: Option<APIServiceSpec> = serde_json::from_str(&before)
            .map_err(|error| RegistrationError::Former { api, reason: error.to_string() })?;
        let Some(before) = before else {
            self.0.delete(&api.to_string(), &DeleteParams::default()).await.map_err(|e| said(api, &e))?;
            return Ok(Some(Owner::Nobody));
        };
        found.spec = Some(before);
        if let Some(annotations) = &mut found.metadata.annotations {
            annotations.remove(FORMER_SPEC_ANNOTATION);
        }
        self.write(api, &found, true).await?;
        Ok(Some(Registered::of(api, Some(&found)).owner))
    }

    async fn get(&self, api: ApiName) -> Result<Option<APIService>, RegistrationError> {
        self.0.get_opt(&api.to_string()).await.map_err(|error| said(api, &error))
    }

    /// Refused by kube-apiserver if anyone has changed it since it was read.
    async fn write(&self, api: ApiName, one: &APIService, exists: bool) -> Result<(), RegistrationError> {
        let written = match exists {
            true => self.0.replace(&api.to_string(), &PostParams::default(), one).await,
            false => self.0.create(&PostParams::default(), one).await,
        };
        written.map(|_| ()).map_err(|error| said(api, &error))
    }

    async fn wait_until_available(&self, api: ApiName, wait: Duration) -> Result<(), RegistrationError> {
        let begun = Instant::now();
        loop {
            // The word on its availability may still be the former owner's for a moment.
            sleep(AVAILABLE_POLL.min(wait)).await;
            let found = self.get(api).await?;
            if found.as_ref().and_then(is_available) == Some(true) {
                return Ok(());
            }
            if begun.elapsed() >= wait {
                let message = found.as_ref().and_then(unavailable_because).unwrap_or_default();
                return Err(RegistrationError::NotAvailable { api, wait, message });
            }
        }
    }
}

fn unavailable_because(found: &APIService) -> Option<String> {
    let conditions = found.status.as_ref()?.conditions.as_ref()?;
    Some(format!(": {}", conditions.first()?.message.as_ref()?))
}

fn said(api: ApiName, error: &kube::Error) -> RegistrationError {
    RegistrationError::Kubernetes { api, reason: reasons(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(text: &str) -> ServiceName {
        let (namespace, name) = text.split_once('/').expect("a service");
        ServiceName { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn verdicts(owners: [&str; 3], take_over: bool) -> Vec<Verdict> {
        let owner = |text: &str| match text {
            "" => Owner::Nobody,
            "kube" => Owner::ApiServer,
            text => Owner::Service(service(text)),
        };
        let registered: Vec<_> = APIS
            .into_iter()
            .zip(owners)
            .map(|(api, text)| Registered {
                api,
                owner: owner(text),
                is_available: None,
                is_taken_over: false,
            })
            .collect();
        judge(&registered, &service("lookback/lookback"), take_over).into_iter().map(|(_, v)| v).collect()
    }

    #[test]
    fn nothing_is_registered_over_another_and_a_newer_version_beside_another_neither() {
        use Verdict::{Free, Ours, TakeOver, Taken, Withheld};
        let (ours, theirs) = ("lookback/lookback", "monitoring/prometheus-adapter");
        for (owners, take_over, expected) in [
            (["", "", ""], false, [Free, Free, Free]),
            ([ours, ours, ours], false, [Ours, Ours, Ours]),
            ([theirs, "", ""], false, [Taken, Withheld, Free]),
            ([theirs, "", ""], true, [TakeOver, Free, Free]),
            ([theirs, theirs, "keda/keda"], false, [Taken, Taken, Taken]),
            ([ours, theirs, ""], false, [Ours, Taken, Free]),
            (["kube", "", ""], false, [Taken, Withheld, Free]),
        ] {
            assert_eq!(verdicts(owners, take_over), expected, "{owners:?} {take_over}");
        }
    }

    #[test]
    fn an_api_is_named_as_its_apiservice() {
        assert_eq!(ApiName::of("v1beta2.custom.metrics.k8s.io"), Some(APIS[1]));
        assert_eq!(ApiName::of("v1.apps"), None);
    }
}
