//! Processes, over ttrpc.

use vc_agent_protocol::agent::{
    Empty, ExecProcessRequest, SignalProcessRequest, TtyWinResizeRequest, WaitProcessRequest,
    WaitProcessResponse,
};
use vc_types::Deadline;

use super::fault::Fault;
use super::{Client, message};
use crate::{
    AgentError, Call, ExecProcess, ExitStatus, ProcessRef, Processes, Signal, SignalTarget, TerminalSize,
};

impl Processes for Client {
    async fn exec(&self, request: &ExecProcess, deadline: Deadline) -> Result<(), AgentError> {
        let call = Call::ExecProcess;
        // On the wire that is the name of the init process.
        if request.exec.as_str() == request.container.as_str() {
            return Err(AgentError::ProcessExists { detail: request.exec.to_string() });
        }
        let message = ExecProcessRequest {
            container_id: request.container.to_string(),
            exec_id: request.exec.to_string(),
            process: Some(message::whole(call, &request.process)?).into(),
            ..Default::default()
        };
        match self.calls.ask::<Empty>(call, &message, Some(deadline)).await {
            Ok(_) => {
                // A process of that name that has ended is another one.
                self.waits.forget_process(&request.reference());
                Ok(())
            }
            Err(error) => Err(self.blame(error, &request.container, deadline).await),
        }
    }

    async fn signal(
        &self,
        target: &SignalTarget,
        signal: Signal,
        deadline: Deadline,
    ) -> Result<(), AgentError> {
        let (container, exec_id) = match target {
            SignalTarget::Process(process) => (&process.container, message::exec_id(process)),
            SignalTarget::All(container) => (container, String::new()),
        };
        let message = SignalProcessRequest {
            container_id: container.to_string(),
            exec_id,
            signal: signal.number(),
            ..Default::default()
        };
        self.calls.ask::<Empty>(Call::SignalProcess, &message, Some(deadline)).await.map(drop)
    }

    async fn wait(&self, process: &ProcessRef) -> Result<ExitStatus, AgentError> {
        let message = WaitProcessRequest {
            container_id: process.container.to_string(),
            exec_id: message::exec_id(process),
            ..Default::default()
        };
        let ask = || {
            let answer = self.calls.start::<WaitProcessResponse, _>(Call::WaitProcess, &message, None);
            async { exit_status(answer.await?.status) }
        };
        self.waits.wait(process, ask).await
    }

    async fn resize_terminal(
        &self,
        process: &ProcessRef,
        size: TerminalSize,
        deadline: Deadline,
    ) -> Result<(), AgentError> {
        let message = TtyWinResizeRequest {
            container_id: process.container.to_string(),
            exec_id: message::exec_id(process),
            row: size.rows.into(),
            column: size.columns.into(),
            ..Default::default()
        };
        self.calls.ask::<Empty>(Call::TtyWinResize, &message, Some(deadline)).await.map(drop)
    }
}

fn exit_status(status: i32) -> Result<ExitStatus, Fault> {
    let code = u8::try_from(status);
    code.map(ExitStatus).map_err(|_| Fault::Malformed(format!("{status} is no exit status")))
}
