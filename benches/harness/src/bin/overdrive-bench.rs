//! The benchmark driver: `cargo xtask bench` runs it.

fn main() -> std::process::ExitCode {
    overdrive_bench::driver::main()
}
