//! What Kubernetes' APIs are made of: quantities, selectors, resource names, discovery.

pub mod catalog;
pub mod certificates;
pub mod described;
pub mod discovery;
pub mod quantity;
pub mod request_attributes;
pub mod resources;
pub mod selector;
