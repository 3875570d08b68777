//! The main job under filters shaped like the default profiles of container runtimes: it passes, and
//! what cannot be there is named.

use fencepost_host::live::{container_profile, refuse_calls};

use super::common::{Place, Said};

/// Runs the program under a profile. A filter belongs to a thread and what it starts.
fn confined(profile: &'static str, line: &'static str) -> Said {
    let run = move || {
        refuse_calls(&container_profile(profile).expect("a profile")).expect("a filter");
        Place::new().run(line)
    };
    std::thread::spawn(run).join().expect("no panic")
}

#[test]
fn the_smoke_tier_of_svm_passes_under_the_docker_profile() {
    confined("docker", "run --tier smoke svm migration atomics").ends(0);
}

#[test]
fn the_smoke_tier_of_svm_passes_under_the_podman_profile() {
    confined("podman", "run --tier smoke svm migration atomics").ends(0);
}

#[test]
fn the_doctor_names_what_a_profile_takes_away() {
    let said = confined("podman", "doctor");
    said.ends(0).says("process_vm_readv is refused").says("userfaultfd is refused");
    let said = confined("docker", "doctor");
    said.ends(0).says("userfaultfd is refused");
}
