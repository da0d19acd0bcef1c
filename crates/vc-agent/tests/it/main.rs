//! The client against peers that keep to the protocol and against peers that do not; the fake; and
//! the conformance suite on both.
#![cfg(test)]

mod conformance;
mod connect;
mod fake;
mod fixture;
mod hostile;
mod io;
mod peer;
mod reconnect;
mod requests;
mod served;
