//! What Kubernetes' APIs are made of: quantities, selectors, resource names, discovery.

pub mod catalog;
pub mod certificates;
pub mod request_attributes;
