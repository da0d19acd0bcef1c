//! The fake behind a real ttrpc server, which answers with the codes that agents answer with.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use oci_spec::runtime::Spec;
use ttrpc::asynchronous::transport::Listener;
use ttrpc::asynchronous::{Server, TtrpcContext};
use ttrpc::error::get_rpc_status;
use ttrpc::{Code, Error};
use vc_agent::fake::FakeAgent;
use vc_agent::{
    AgentError, Containers, CreateContainer, CreateSandbox, Guest, ProcessRef, Processes, Signal,
    SignalTarget, StorageDriver, Streams, TerminalSize,
};
use vc_agent_protocol::agent::*;
use vc_agent_protocol::agent_ttrpc::{AgentService, create_agent_service};
use vc_agent_protocol::health::{CheckRequest, HealthCheckResponse, ServingStatus};
use vc_agent_protocol::health_ttrpc::{Health, create_health};
use vc_types::{AgentAddress, Deadline, HostPath};

use crate::fixture::storage;
use crate::peer::generous;

/// Serves a fake on a Unix socket until it is dropped.
pub(crate) struct Served {
    _server: Server,
    directory: tempfile::TempDir,
}

impl Served {
    pub(crate) async fn new(agent: FakeAgent) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = format!("unix://{}", directory.path().join("socket").display());
        let service = Arc::new(Service { agent, told: Mutex::default() });
        let mut server = Server::new()
            .add_listener(Listener::bind(address).unwrap())
            .register_service(create_health(service.clone()))
            .register_service(create_agent_service(service));
        server.start().await.unwrap();
        Self { _server: server, directory }
    }

    pub(crate) fn address(&self) -> AgentAddress {
        AgentAddress::Unix { socket: HostPath::new(self.directory.path().join("socket")).unwrap() }
    }
}

struct Service {
    agent: FakeAgent,
    /// The processes whose exit status was told: the wire does so once.
    told: Mutex<HashSet<ProcessRef>>,
}

fn process(container: &str, exec: &str) -> ProcessRef {
    let container = container.parse().unwrap();
    let init = ProcessRef::init(&container);
    if exec == container.as_str() { init } else { ProcessRef { exec: Some(exec.parse().unwrap()), ..init } }
}

fn deadline(context: &TtrpcContext) -> Deadline {
    assert!(context.timeout_nano > 0, "a deadline goes with the call");
    generous()
}

fn empty(result: Result<(), AgentError>) -> ttrpc::Result<Empty> {
    result.map(|()| Empty::new()).map_err(status)
}

fn status(error: AgentError) -> Error {
    let code = match &error {
        AgentError::NoSuchContainer { .. } => Code::INVALID_ARGUMENT,
        AgentError::NoSuchProcess { .. } | AgentError::AlreadyGone => Code::NOT_FOUND,
        AgentError::ExecutableNotFound { .. } => Code::NOT_FOUND,
        AgentError::NotExecutable { .. } => Code::PERMISSION_DENIED,
        AgentError::ContainerExists { .. } => Code::ALREADY_EXISTS,
        AgentError::StreamClosed => Code::FAILED_PRECONDITION,
        AgentError::Deadline { .. } => Code::DEADLINE_EXCEEDED,
        _ => Code::INTERNAL,
    };
    get_rpc_status(code, format!("{error}\nStack backtrace:\n 0: main"))
}

fn port_storage(message: &Storage) -> vc_agent::Storage {
    let driver = match message.driver.as_str() {
        "blk" => StorageDriver::Block,
        "overlayfs" => StorageDriver::Overlay,
        other => panic!("unknown driver {other}"),
    };
    let options: Vec<&str> = message.options.iter().map(String::as_str).collect();
    storage(driver, &message.mount_point, &options)
}

#[async_trait]
impl Health for Service {
    async fn check(&self, context: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        self.agent.check(deadline(context)).await.map_err(status)?;
        Ok(HealthCheckResponse { status: ServingStatus::SERVING.into(), ..Default::default() })
    }
}

#[async_trait]
impl AgentService for Service {
    async fn create_sandbox(
        &self,
        context: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> ttrpc::Result<Empty> {
        let sandbox = CreateSandbox {
            id: request.sandbox_id.parse().unwrap(),
            hostname: request.hostname,
            dns: request.dns,
            storages: request.storages.iter().map(port_storage).collect(),
        };
        empty(self.agent.create_sandbox(&sandbox, deadline(context)).await)
    }

    async fn destroy_sandbox(
        &self,
        context: &TtrpcContext,
        _: DestroySandboxRequest,
    ) -> ttrpc::Result<Empty> {
        empty(self.agent.destroy_sandbox(deadline(context)).await)
    }

    async fn create_container(
        &self,
        context: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let container = CreateContainer {
            id: request.container_id.parse().unwrap(),
            spec: Spec::try_from(request.oci.as_ref().unwrap()).unwrap(),
            storages: request.storages.iter().map(port_storage).collect(),
            shared_pid_namespace: request.sandbox_pidns,
        };
        empty(self.agent.create_container(&container, deadline(context)).await)
    }

    async fn start_container(
        &self,
        context: &TtrpcContext,
        request: StartContainerRequest,
    ) -> ttrpc::Result<Empty> {
        empty(self.agent.start_container(&request.container_id.parse().unwrap(), deadline(context)).await)
    }

    async fn remove_container(
        &self,
        context: &TtrpcContext,
        request: RemoveContainerRequest,
    ) -> ttrpc::Result<Empty> {
        assert!(request.timeout > 0, "0 would mean for ever");
        let id = request.container_id.parse().unwrap();
        let removed = self.agent.remove_container(&id, deadline(context)).await;
        self.told.lock().unwrap().retain(|process| process.container != id);
        empty(removed)
    }

    async fn signal_process(
        &self,
        context: &TtrpcContext,
        request: SignalProcessRequest,
    ) -> ttrpc::Result<Empty> {
        let target = match request.exec_id.as_str() {
            "" => SignalTarget::All(request.container_id.parse().unwrap()),
            exec => SignalTarget::Process(process(&request.container_id, exec)),
        };
        let signal = Signal::new(request.signal.try_into().unwrap()).unwrap();
        empty(self.agent.signal(&target, signal, deadline(context)).await)
    }

    async fn wait_process(
        &self,
        context: &TtrpcContext,
        request: WaitProcessRequest,
    ) -> ttrpc::Result<WaitProcessResponse> {
        assert_eq!(context.timeout_nano, 0, "a process may run for ever");
        let process = process(&request.container_id, &request.exec_id);
        if !self.told.lock().unwrap().insert(process.clone()) {
            return Err(get_rpc_status(Code::NOT_FOUND, "its exit status was told before"));
        }
        match self.agent.wait(&process).await {
            Ok(code) => Ok(WaitProcessResponse { status: code.0.into(), ..Default::default() }),
            Err(error) => {
                self.told.lock().unwrap().remove(&process);
                Err(status(error))
            }
        }
    }

    async fn write_stdin(
        &self,
        _: &TtrpcContext,
        request: WriteStreamRequest,
    ) -> ttrpc::Result<WriteStreamResponse> {
        let process = process(&request.container_id, &request.exec_id);
        let taken = self.agent.write_stdin(&process, &request.data).await.map_err(status)?;
        Ok(WriteStreamResponse { len: taken.try_into().unwrap(), ..Default::default() })
    }

    async fn read_stdout(
        &self,
        _: &TtrpcContext,
        request: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        let process = process(&request.container_id, &request.exec_id);
        let data = self.agent.read_stdout(&process, request.len).await.map_err(status)?;
        Ok(ReadStreamResponse { data, ..Default::default() })
    }

    async fn read_stderr(
        &self,
        _: &TtrpcContext,
        request: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        let process = process(&request.container_id, &request.exec_id);
        let data = self.agent.read_stderr(&process, request.len).await.map_err(status)?;
        Ok(ReadStreamResponse { data, ..Default::default() })
    }

    async fn close_stdin(&self, context: &TtrpcContext, request: CloseStdinRequest) -> ttrpc::Result<Empty> {
        let process = process(&request.container_id, &request.exec_id);
        empty(self.agent.close_stdin(&process, deadline(context)).await)
    }

    async fn tty_win_resize(
        &self,
        context: &TtrpcContext,
        request: TtyWinResizeRequest,
    ) -> ttrpc::Result<Empty> {
        let process = process(&request.container_id, &request.exec_id);
        let size = TerminalSize {
            rows: request.row.try_into().unwrap(),
            columns: request.column.try_into().unwrap(),
        };
        empty(self.agent.resize_terminal(&process, size, deadline(context)).await)
    }
}
