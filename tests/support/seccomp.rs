//! Runs a process under a seccomp filter that makes one system call fail, as sandboxes do.

/// A system call: every use of it, or only those with certain arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub name: &'static str,
    number: i64,
    /// The arguments that must match: the index of each, and the low 32 bits of its value.
    arguments: [Option<(u32, u32)>; 2],
}

impl Call {
    pub const fn new(name: &'static str, number: i64) -> Self {
        Self {
            name,
            number,
            arguments: [None; 2],
        }
    }

    /// Only the uses of `setsockopt(2)` or `getsockopt(2)` with this level and this option.
    pub const fn option(name: &'static str, number: i64, level: i32, option: i32) -> Self {
        Self {
            name,
            number,
            arguments: [Some((1, level as u32)), Some((2, option as u32))],
        }
    }

    /// Only the uses of `fcntl(2)` or `ioctl(2)` with this command.
    pub const fn command(name: &'static str, number: i64, command: u32) -> Self {
        Self {
            name,
            number,
            arguments: [Some((1, command)), None],
        }
    }

    /// A seccomp program (an array of struct sock_filter of linux/filter.h, in hexadecimal) that fails this call with
    /// `errno`.
    fn filter(&self, errno: i32) -> String {
        const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
        const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
        const RETURN: u16 = 0x06; // BPF_RET | BPF_K
        // Offsets in struct seccomp_data: the call's number is at 0, the arguments begin at 16, 8 bytes each.
        let number = (0, u32::try_from(self.number).unwrap());
        let arguments = self.arguments.iter().flatten();
        let arguments = arguments.map(|(index, value)| (16 + 8 * index, *value));
        let conditions: Vec<(u32, u32)> = std::iter::once(number).chain(arguments).collect();
        let mut filter = Vec::new();
        for (index, (offset, value)) in conditions.iter().enumerate() {
            // A condition that fails skips the two instructions of each later one, and then the return of the error.
            let skipped = 2 * (conditions.len() - 1 - index) + 1;
            filter.push((LOAD, 0, *offset));
            filter.push((IF_EQUAL, u8::try_from(skipped).unwrap(), *value));
        }
        filter.push((RETURN, 0, libc::SECCOMP_RET_ERRNO | errno as u32));
        filter.push((RETURN, 0, libc::SECCOMP_RET_ALLOW));
        let instruction = |(code, skipped, value): (u16, u8, u32)| {
            let bytes = [&code.to_ne_bytes()[..], &[0, skipped], &value.to_ne_bytes()].concat();
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        filter.into_iter().map(instruction).collect()
    }
}

/// Lowers the soft limit of open files, so that acequia raises it by `prlimit64`; installs a filter; and executes a
/// command.
const LAUNCHER: &str = "
import ctypes, os, resource, struct, sys
program = ctypes.create_string_buffer(bytes.fromhex(sys.argv[1]))
libc = ctypes.CDLL(None)
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (500, limit))
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, struct.pack('HP', len(program) // 8, ctypes.addressof(program))) == 0  # PR_SET_SECCOMP
os.execvp(sys.argv[2], sys.argv[2:])
";

/// The words to put before a command, so that its process gets this error from this call; 0: the call returns 0,
/// without effect.
pub fn refusing(call: &Call, errno: i32) -> [String; 6] {
    let filter = call.filter(errno);
    ["/usr/bin/python3", "-I", "-S", "-c", LAUNCHER, &filter].map(str::to_owned)
}
