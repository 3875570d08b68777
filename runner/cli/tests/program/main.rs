//! Tests of the whole program: the built executable, started as a user's shell would.

mod cli;
mod common;
mod confined;
mod kill;
mod run;
