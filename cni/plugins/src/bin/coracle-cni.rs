//! The plugins as a program. A link to it with the name of a plugin is that plugin; under its own name the plugin is
//! the first argument or, without one, the `type` of the configuration.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use coracle_cni::program;
use coracle_cni_plugins::PLUGINS;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let name = name.as_deref().map(Path::new).and_then(Path::file_name).and_then(OsStr::to_str);
    let argument = arguments.next();
    let kind =
        name.filter(|name| *name != env!("CARGO_BIN_NAME")).or(argument.as_deref().and_then(OsStr::to_str));
    let code = program::run(
        &PLUGINS,
        kind,
        &|variable| std::env::var_os(variable),
        &mut std::io::stdin().lock(),
        &mut std::io::stdout().lock(),
    );
    ExitCode::from(code)
}
