//! `grpc.Health`.

use async_trait::async_trait;
use ttrpc::asynchronous::TtrpcContext;
use vc_agent_protocol::health::{CheckRequest, HealthCheckResponse, ServingStatus, VersionCheckResponse};
use vc_agent_protocol::health_ttrpc;

/// The version of the health service's interface, as Kata's agent gives it.
const INTERFACE_VERSION: &str = "0.0.1";

#[derive(Debug)]
pub(super) struct Health;

#[async_trait]
impl health_ttrpc::Health for Health {
    async fn check(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        Ok(HealthCheckResponse { status: ServingStatus::SERVING.into(), ..Default::default() })
    }

    async fn version(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<VersionCheckResponse> {
        Ok(VersionCheckResponse {
            grpc_version: INTERFACE_VERSION.to_owned(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }
}
