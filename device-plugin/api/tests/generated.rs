//! The generated code is what the protos say.

use std::fs;
use std::path::Path;

/// With `CORACLE_BLESS` the code is written instead of compared.
#[test]
fn generated_code_is_that_of_the_protos() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protos = here.join("proto");
    let names = ["deviceplugin_v1beta1.proto", "pluginregistration_v1.proto", "podresources_v1.proto"];
    let out = tempfile::tempdir().expect("a directory for generated code");
    for name in names {
        let descriptors = protox::compile([protos.join(name)], [&protos]).expect("the protos are right");
        tonic_prost_build::configure()
            .build_transport(false)
            .emit_rerun_if_changed(false)
            .out_dir(out.path())
            .compile_fds(descriptors)
            .expect("code is generated");
    }
    for file in ["v1beta1.rs", "pluginregistration.rs", "v1.rs"] {
        let fresh = fs::read_to_string(out.path().join(file)).expect("a file for each package");
        let kept = here.join("src/generated").join(file);
        if std::env::var_os("CORACLE_BLESS").is_some() {
            fs::write(&kept, fresh).expect("generated code can be written");
        } else {
            let old = fs::read_to_string(&kept).unwrap_or_default();
            assert!(
                old == fresh,
                "{} is not what its proto says: set CORACLE_BLESS to write it anew",
                kept.display()
            );
        }
    }
}
