//! The calls of the agent protocol.

use std::fmt;

/// A call of the agent protocol, named in errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is named after its call in the agent protocol")]
pub enum Call {
    Check,
    CreateSandbox,
    DestroySandbox,
    GetGuestDetails,
    GetMetrics,
    GetDiagnosticData,
    GetOOMEvent,
    OnlineCPUMem,
    MemHotplugByProbe,
    AddSwap,
    AddSwapPath,
    SetGuestDateTime,
    ReseedRandomDev,
    UpdateInterface,
    ListInterfaces,
    UpdateRoutes,
    ListRoutes,
    AddARPNeighbors,
    GetIPTables,
    SetIPTables,
    CopyFile,
    GetVolumeStats,
    ResizeVolume,
    UpdateEphemeralMounts,
    RemoveStaleVirtiofsShareMounts,
    CreateContainer,
    StartContainer,
    RemoveContainer,
    UpdateContainer,
    PauseContainer,
    ResumeContainer,
    StatsContainer,
    ExecProcess,
    SignalProcess,
    WaitProcess,
    TtyWinResize,
    WriteStdin,
    CloseStdin,
    ReadStdout,
    ReadStderr,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
