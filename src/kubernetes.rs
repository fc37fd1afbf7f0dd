//! What Kubernetes' APIs are made of: quantities, selectors, resource names, discovery; and the cluster.

pub mod adapter;
pub mod autoscalers;
pub mod ca_bundle;
pub mod catalog;
pub mod certificates;
pub mod cluster;
pub mod described;
pub mod discovery;
pub mod documents;
pub mod live;
pub mod live_mapping;
pub mod mapping;
pub mod object_index;
pub mod objects;
pub mod openapi;
mod own_ca;
pub mod quantity;
pub mod registration;
pub mod replica_formula;
pub mod request_attributes;
pub mod resource_metrics;
pub mod resources;
pub mod reviews;
pub mod selector;
pub mod served;
pub mod user;
