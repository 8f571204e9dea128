//! Links the addon: Node-API symbols stay undefined, and the library is never unloaded.

fn main() {
    napi_build::setup();
    // A worker that was the first to load the addon unloads it when it ends; vCPU threads and the
    // kick signal's handler must still find their code then.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
