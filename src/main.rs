//! The `causeway` command. Everything it does lives in the library.

fn main() -> std::process::ExitCode {
    causeway::cli::main()
}
