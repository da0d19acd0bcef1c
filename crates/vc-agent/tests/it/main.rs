//! The client against peers that keep to the protocol, and against peers that do not.
#![cfg(test)]

mod connect;
mod hostile;
mod peer;
mod requests;
