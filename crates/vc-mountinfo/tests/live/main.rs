//! Look-ups of real mounts, loop devices and images, made for each test in a mount namespace of its own.

#![expect(clippy::unwrap_used, reason = "what cannot be made fails the test, in helpers as in tests")]

mod example;
mod images;
mod kernel;
mod layers;
mod loops;
mod mounts;
mod tables;
mod uses;
mod world;
