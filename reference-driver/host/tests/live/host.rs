//! The runner's side: devices, children, their ends, and machines that refuse things.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child as Process, Command, Stdio};
use std::time::Duration;

use fencepost_fixtures::sys::message::wait_readable;
use fencepost_host::live::{
    Backend, Child, Config, Device, break_driver, container_profile, forking, probe, refuse_calls,
};
use fencepost_uapi::command as c;
use fencepost_uapi::fencepost::COUNTERS;
use nix::errno::Errno;

use super::client::{Node, PAGE, RENDER, command, hear, say, write_batch};

/// Tests that are more than one client.
pub(crate) const TESTS: &[(&str, fn())] = &[
    ("clients_are_apart", clients_are_apart),
    ("several_clients_share_the_device", several_clients_share_the_device),
    ("killed_with_jobs_in_flight", killed_with_jobs_in_flight),
    ("killed_while_blocked", killed_while_blocked),
    ("wait_with_a_limit", wait_with_a_limit),
    ("stragglers_end_with_the_device", stragglers_end_with_the_device),
    ("death_of_the_host_fails_calls", death_of_the_host_fails_calls),
    ("children_die_with_the_host", children_die_with_the_host),
    ("panic_of_the_driver_ends_the_device_only", panic_of_the_driver_ends_the_device_only),
    ("a_missing_program_is_an_error", a_missing_program_is_an_error),
    ("probes_agree_with_what_works", probes_agree_with_what_works),
    ("under_the_docker_profile", || under("docker")),
    ("under_the_podman_profile", || under("podman")),
    ("without_privileges", without_privileges),
    ("a_foreign_program", a_foreign_program),
    ("a_foreign_program_is_mirrored", a_foreign_program_is_mirrored),
];

const LONG: Duration = Duration::from_secs(30);

/// Roles that are not clients of their own test.
pub(crate) fn helper(name: &str) -> Option<fn(&[String])> {
    Some(match name {
        "after_exec" => after_exec,
        "hold" => hold,
        "busy" => busy,
        "blocked" => blocked,
        "orphan" => orphan,
        "lost" => lost,
        "ping_on_demand" => ping_on_demand,
        "runner" => runner,
        "confined" => confined,
        "all" => all,
        "exec" => exec,
        _ => return None,
    })
}

fn this(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(["--role", role]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn device() -> Device {
    Device::new(&Config::default()).expect("a device")
}

fn counter(device: &Device, name: &str) -> u64 {
    let index = COUNTERS.iter().position(|known| *known == name).expect("a counter");
    device.counters().expect("a live device")[index]
}

/// A client with its lines.
struct Talk {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

fn talk(device: &Device, role: &str) -> Talk {
    let mut child = device.spawn(this(role)).expect("spawn");
    let out = BufReader::new(child.process_mut().stdout.take().expect("piped"));
    Talk { child, out }
}

impl Talk {
    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line of the client");
        line.trim().to_owned()
    }

    fn say(&mut self, line: &str) {
        let stdin = self.child.process_mut().stdin.as_mut().expect("piped");
        writeln!(stdin, "{line}").expect("a client that listens");
    }

    fn ends_well(&mut self) {
        let status = self.child.wait_timeout(LONG).expect("wait").expect("an end in time");
        assert!(status.success(), "{status}");
    }
}

/// Runs a client on a device of its own; nothing may be left.
pub(crate) fn client_succeeds(role: &str) {
    let device = device();
    let mut child = device.spawn(this(role)).expect("spawn");
    let status = child.wait_timeout(2 * LONG).expect("wait").expect("an end in time");
    assert!(status.success(), "{role}: {status}");
    drop(child);
    let leaks = device.shutdown();
    assert!(leaks.is_clean(), "{role}: {leaks:?}");
}

fn clean(device: Device) {
    let leaks = device.shutdown();
    assert!(leaks.is_clean(), "{leaks:?}");
}

// ---- helpers' roles --------------------------------------------------------------------------------

fn after_exec(args: &[String]) {
    let number = |i: usize| args[i].parse().expect("a descriptor");
    let kept = fencepost_fixtures::sys::fd::duplicate(number(0)).expect("kept over exec");
    super::client::ping(kept.as_fd()).expect("the node");
    let closed = fencepost_fixtures::sys::fd::duplicate(number(1));
    assert_eq!(closed.map(drop), Err(Errno::EBADF));
}

/// Has a file and an object until told otherwise.
fn hold(_: &[String]) {
    let node = Node::open();
    node.gem_create(PAGE);
    say("ready");
    while hear() == "ping" {
        node.ping().expect("ping");
        say("pong");
    }
}

/// Runs a job that never ends, with others behind it.
fn busy(_: &[String]) {
    let node = Node::open();
    let (batch, vm) = (node.gem_create(PAGE), node.vm_create());
    let memory = node.map(batch, PAGE);
    node.bind(vm, batch, 0x10_0000, PAGE);
    let never = command(c::SEMAPHORE_WAIT, c::WIDE, 0, &[0x10_0800, 1, !0]);
    let length = write_batch(&memory, &[never, command(c::END, 0, 0, &[])]);
    let queue = node.queue_create(vm);
    for _ in 0..3 {
        node.exec(queue, 0x10_0000, length, node.syncobj());
    }
    say("ready");
    hear();
}

fn blocked(_: &[String]) {
    let node = Node::open();
    let syncobjs: Vec<u32> = (0..3).map(|_| node.syncobj()).collect();
    std::thread::scope(|scope| {
        for syncobj in &syncobjs {
            scope.spawn(|| node.wait(*syncobj));
        }
        say("ready");
    });
}

/// Leaves a child behind that has the device open.
fn orphan(_: &[String]) {
    let node = Node::open();
    let mut command = this("hold");
    let mut child = command.stdin(Stdio::inherit()).spawn().expect("spawn");
    let mut line = String::new();
    let out = child.stdout.take().expect("piped");
    BufReader::new(out).read_line(&mut line).expect("a line");
    node.ping().expect("ping");
    // Left behind on purpose.
    std::mem::forget(child);
}

/// Outlives its host, and says how its calls end then.
fn lost(_: &[String]) {
    let node = Node::open();
    nix::sys::prctl::set_pdeathsig(None).expect("prctl");
    say(&format!("ready {}", std::process::id()));
    hear();
    say(&format!("call {:?}, open {:?}", node.ping(), open_node()));
}

fn ping_on_demand(_: &[String]) {
    let node = Node::open();
    say("ready");
    loop {
        match hear().as_str() {
            "ping" => say(&format!("{:?}", node.ping())),
            "open" => say(&format!("{:?}", open_node())),
            _ => return,
        }
    }
}

fn open_node() -> Result<(), Option<i32>> {
    std::fs::File::open(RENDER).map(drop).map_err(|error| error.raw_os_error())
}

/// A runner of its own: starts a client with the given role, and passes its lines on.
fn runner(args: &[String]) {
    let device = device();
    let mut command = this(&args[0]);
    command.stdin(Stdio::inherit()).stdout(Stdio::inherit());
    let mut child = device.spawn(command).expect("spawn");
    let _status = child.wait();
}

/// A runner under a container's filter.
fn confined(args: &[String]) {
    refuse_calls(&container_profile(&args[0]).expect("a profile")).expect("a filter");
    let refused = probe().into_iter().filter(|probe| !probe.ok).collect::<Vec<_>>();
    assert!(refused.is_empty(), "{refused:?}");
    all(&[]);
}

/// Runs any program on a device of its own.
fn exec(args: &[String]) {
    let device = device();
    let mut command = Command::new(&args[0]);
    command.args(&args[1..]);
    let status = device.spawn(command).expect("spawn").wait().expect("wait");
    println!("{status}");
    clean(device);
}

/// Every client, one after the other.
fn all(_: &[String]) {
    for (role, _) in super::clients() {
        client_succeeds(role);
    }
    for (role, _) in super::mirror::ROLES {
        super::mirror::client_succeeds(role, Backend::here());
    }
    killed_with_jobs_in_flight();
    killed_while_blocked();
}

// ---- tests -------------------------------------------------------------------------------------

fn clients_are_apart() {
    let (one, two) = (device(), device());
    let (mut a, mut b) = (talk(&one, "hold"), talk(&two, "hold"));
    assert_eq!((a.hear(), b.hear()), ("ready".to_owned(), "ready".to_owned()));
    for device in [&one, &two] {
        assert_eq!((counter(device, "live.files"), counter(device, "live.bos")), (1, 1));
    }
    a.say("end");
    a.ends_well();
    assert_eq!((counter(&one, "live.files"), counter(&two, "live.files")), (0, 1));
    b.say("end");
    b.ends_well();
    clean(one);
    clean(two);
}

fn several_clients_share_the_device() {
    let device = device();
    let mut clients: Vec<Talk> = (0..6).map(|_| talk(&device, "hold")).collect();
    for client in &mut clients {
        assert_eq!(client.hear(), "ready");
    }
    assert_eq!((counter(&device, "live.files"), counter(&device, "live.bos")), (6, 6));
    for (left, client) in clients.iter_mut().enumerate().rev() {
        client.say("ping");
        assert_eq!(client.hear(), "pong");
        client.say("end");
        client.ends_well();
        assert_eq!(counter(&device, "live.files"), left as u64);
    }
    clean(device);
}

fn killed_with_jobs_in_flight() {
    let device = device();
    let mut client = talk(&device, "busy");
    assert_eq!(client.hear(), "ready");
    assert!(counter(&device, "live.jobs") > 0 && counter(&device, "live.vas") > 0);
    client.child.kill().expect("kill");
    let status = client.child.wait_timeout(LONG).expect("wait").expect("an end in time");
    assert!(!status.success());
    let left: Vec<_> = COUNTERS.iter().filter(|name| name.starts_with("live.")).collect();
    let after = device.counters().expect("a live device");
    // A job that an engine is just stepping ends with that step.
    let jobs = COUNTERS.iter().position(|name| *name == "live.jobs").expect("a counter");
    for (name, value) in COUNTERS.iter().zip(after) {
        assert!(value == 0 || !left.contains(&name) || after[jobs] > 0, "{name}: {value}");
    }
    clean(device);
}

fn killed_while_blocked() {
    let device = device();
    let mut client = talk(&device, "blocked");
    assert_eq!(client.hear(), "ready");
    client.child.kill().expect("kill");
    client.child.wait_timeout(LONG).expect("wait").expect("an end in time");
    clean(device);
}

fn wait_with_a_limit() {
    let device = device();
    let mut client = talk(&device, "hold");
    assert_eq!(client.hear(), "ready");
    let soon = Duration::from_millis(1);
    assert!(client.child.wait_timeout(soon).expect("wait").is_none(), "still there");
    assert!(client.child.try_wait().expect("wait").is_none(), "still there");
    drop(client);
    clean(device);
}

fn stragglers_end_with_the_device() {
    let device = device();
    let mut client = talk(&device, "orphan");
    // The orphan reads what we never write: waiting must not close it.
    let _stdin = client.child.process_mut().stdin.take();
    let status = client.child.wait_timeout(LONG).expect("wait").expect("an end in time");
    assert!(status.success(), "{status}");
    assert_eq!(counter(&device, "live.files"), 1, "the orphan's");
    let leaks = device.shutdown();
    assert!(
        leaks.stragglers > 0 && leaks.objects.is_empty() && leaks.descriptors == 0,
        "{leaks:?}"
    );
}

/// Starts a runner that starts a client with this role; gives the runner and the client's first line.
fn start_runner(role: &str) -> (Process, BufReader<std::process::ChildStdout>, String) {
    let mut runner = forking(|| this("runner").arg(role).spawn()).expect("spawn");
    let mut out = BufReader::new(runner.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line of the client");
    (runner, out, line.trim().to_owned())
}

fn death_of_the_host_fails_calls() {
    let (mut runner, mut out, line) = start_runner("lost");
    assert!(line.starts_with("ready "), "{line}");
    // Waiting would close it.
    let mut stdin = runner.stdin.take().expect("piped");
    runner.kill().expect("kill");
    runner.wait().expect("wait");
    writeln!(stdin, "go").expect("a client that listens");
    let mut said = String::new();
    out.read_to_string(&mut said).expect("the client's last words");
    assert_eq!(said.trim(), "call Err(ENOSYS), open Err(Some(38))");
}

fn children_die_with_the_host() {
    let (mut runner, mut out, line) = start_runner("hold");
    assert_eq!(line, "ready");
    // Kept open, or the client would end by itself.
    let _stdin = runner.stdin.take();
    runner.kill().expect("kill");
    runner.wait().expect("wait");
    // The client is the last that holds the pipe: it ends when the client has died.
    wait_readable(out.get_ref().as_fd(), LONG).expect("the end of the client");
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("the end of the pipe");
    assert_eq!(rest, "");
}

fn panic_of_the_driver_ends_the_device_only() {
    let (broken, other) = (device(), device());
    let mut client = talk(&broken, "ping_on_demand");
    assert_eq!(client.hear(), "ready");
    client.say("ping");
    assert_eq!(client.hear(), "Ok(())");
    assert_eq!(broken.panicked(), None);
    break_driver(&broken, "for the test");
    client.say("ping");
    assert_eq!(client.hear(), "Err(ENODEV)");
    client.say("open");
    assert_eq!(client.hear(), "Err(Some(19))");
    client.say("end");
    client.ends_well();
    assert_eq!(broken.counters(), None);
    let leaks = broken.shutdown();
    let said = leaks.panic.expect("the panic's message");
    assert!(said.starts_with("for the test at "), "{said}");

    let mut client = talk(&other, "ping_on_demand");
    assert_eq!(client.hear(), "ready");
    client.say("end");
    client.ends_well();
    clean(other);
}

fn a_missing_program_is_an_error() {
    let device = device();
    let error = device.spawn(Command::new("/nonexistent")).expect_err("no such program");
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    clean(device);
}

fn probes_agree_with_what_works() {
    for probe in probe() {
        assert!(probe.ok == probe.remedy.is_empty(), "{probe:?}");
        assert!(probe.ok && !probe.detail.is_empty(), "{probe:?}");
    }
}

/// A runner under a filter like a container's.
fn under(profile: &str) {
    let mut runner = forking(|| this("confined").arg(profile).spawn()).expect("spawn");
    let status = runner.wait().expect("wait");
    assert!(status.success(), "{profile}: {status}");
}

/// A runner as nobody, with no way back.
fn without_privileges() {
    if !nix::unistd::geteuid().is_root() {
        // All other tests are this one.
        return;
    }
    const NOBODY: u32 = 65534;
    let mut command = this("all");
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    match forking(|| command.spawn()) {
        Ok(mut runner) => {
            let status = runner.wait().expect("wait");
            assert!(status.success(), "{status}");
        }
        // The build folder of root may be closed to others.
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EACCES)),
    }
}

/// A program that knows nothing of this project has its memory mirrored: python3, if there is one, by the
/// ioctls of test_hmm.
fn a_foreign_program_is_mirrored() {
    const SCRIPT: &str = "
import ctypes, fcntl, mmap, os, struct
fd = os.open('/dev/hmm_dmirror0', os.O_RDWR)
memory, mirror = mmap.mmap(-1, 16 * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), mmap.mmap(-1, 16 * 4096)
at = lambda m: ctypes.addressof(ctypes.c_char.from_buffer(m))
memory[5 * 4096:5 * 4096 + 4] = b'away'
call = lambda nr: struct.unpack('5Q', fcntl.ioctl(fd, 0xc0284800 | nr, struct.pack('5Q', at(memory), at(mirror), 16, 0, 0)))
assert call(2)[3] == 16
assert mirror[5 * 4096:5 * 4096 + 4] == b'away'
assert memory[5 * 4096:5 * 4096 + 4] == b'away'
os.close(fd)
";
    let device = device();
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]);
    match device.spawn(command) {
        Ok(mut child) => {
            let status = child.wait_timeout(LONG).expect("wait").expect("an end in time");
            assert!(status.success(), "{status}");
        }
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOENT)),
    }
    clean(device);
}

/// python3, if there is one: a program that knows nothing of this project.
fn a_foreign_program() {
    const SCRIPT: &str = "
import fcntl, os, struct
fd = os.open('/dev/dri/card0', os.O_RDWR)
caps = fcntl.ioctl(fd, 0xc010640c, struct.pack('QQ', 5, 0))
assert struct.unpack('QQ', caps)[1] == 3, caps
os.close(fd)
";
    let device = device();
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]);
    match device.spawn(command) {
        Ok(mut child) => {
            let status = child.wait_timeout(LONG).expect("wait").expect("an end in time");
            assert!(status.success(), "{status}");
        }
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOENT)),
    }
    clean(device);
}
