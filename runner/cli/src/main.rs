//! The `fencepost` program; everything is in the library, which `cargo test` drives as well.
fn main() -> std::process::ExitCode {
    fencepost::main()
}
