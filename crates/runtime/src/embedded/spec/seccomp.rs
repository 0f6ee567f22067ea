//! The `RuntimeDefault` seccomp profile: an allow list of the system calls that programs need, with those that manage
//! the machine tied to the capability that would permit them. What is not listed fails with EPERM, except calls newer
//! than this list, which fail with ENOSYS so that the C library falls back.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// Files, memory, processes, signals, sockets, time: harmless without further rights.
const ALLOWED: &str = "
accept accept4 access alarm bind brk cachestat capget capset chdir chmod chown chown32
clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64
close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat
faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs
fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32
getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid
getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill
landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen
listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack
membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect
mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat
_newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll
ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev
pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages
removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending
rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg
sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32
setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown
sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64
statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete
timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink
unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
process_vm_readv process_vm_writev ptrace
";

/// What each architecture needs besides.
#[cfg(target_arch = "x86_64")]
const NATIVE: &str = "arch_prctl modify_ldt";
#[cfg(not(target_arch = "x86_64"))]
const NATIVE: &str = "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2";

/// Calls that a capability opens.
const BY_CAPABILITY: [(&str, &str); 11] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules
         lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname
         sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node migrate_pages move_pages"),
];
/// More of the same, for capabilities that later kernels split off CAP_SYS_ADMIN.
const BY_NEW_CAPABILITY: [(&str, &str); 3] = [("CAP_SYSLOG", "syslog"), ("CAP_BPF", "bpf"), ("CAP_PERFMON", "perf_event_open")];

/// `clone` flags that make namespaces.
const NEW_NAMESPACES: u64 = 0x7E02_0000;
/// Address families: AF_VSOCK reaches the hypervisor, past every network policy.
const AF_VSOCK: u64 = 40;
const AF_ALG: u64 = 38;
const ENOSYS: u32 = 38;

/// The profile of a container with these capabilities, in the form of the OCI specification.
#[must_use]
pub fn default_profile(capabilities: &BTreeSet<&'static str>) -> Value {
    let mut names: BTreeSet<&str> = ALLOWED.split_whitespace().chain(NATIVE.split_whitespace()).collect();
    for (capability, calls) in BY_CAPABILITY.iter().chain(&BY_NEW_CAPABILITY) {
        if capabilities.contains(capability) {
            names.extend(calls.split_whitespace());
        }
    }
    let allow = |names: Value, args: Value| json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": args});
    let mut rules = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    // Sockets of any family but those that leave the network namespace or drive the kernel's cryptography.
    rules.push(allow(json!(["socket"]), json!([{"index": 0, "value": AF_ALG, "op": "SCMP_CMP_LT"}])));
    rules.push(allow(json!(["socket"]), json!([{"index": 0, "value": 39, "op": "SCMP_CMP_EQ"}])));
    rules.push(allow(json!(["socket"]), json!([{"index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_GT"}])));
    // Only personalities that emulate nothing dangerous.
    for persona in [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff_u64] {
        rules.push(allow(json!(["personality"]), json!([{"index": 0, "value": persona, "op": "SCMP_CMP_EQ"}])));
    }
    if !capabilities.contains("CAP_SYS_ADMIN") {
        let no_namespace = json!([{"index": 0, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]);
        rules.push(allow(json!(["clone"]), no_namespace));
        // Its flags are in memory, which a filter cannot see: the C library then uses `clone`.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": architectures(),
        "syscalls": rules,
    })
}

fn architectures() -> &'static [&'static str] {
    match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_open_calls() {
        let names = |profile: &Value| profile["syscalls"][0]["names"].as_array().unwrap().clone();
        let plain = names(&default_profile(&BTreeSet::new()));
        let admin = names(&default_profile(&BTreeSet::from(["CAP_SYS_ADMIN"])));
        for (call, by_default, by_admin) in [
            ("read", true, true),
            ("mount", false, true),
            ("reboot", false, false),
            ("keyctl", false, false),
            ("unshare", false, true),
        ] {
            assert_eq!((plain.contains(&json!(call)), admin.contains(&json!(call))), (by_default, by_admin), "{call}");
        }
    }

    #[test]
    fn the_profile_is_one_of_oci() {
        let profile = default_profile(&BTreeSet::from(["CAP_SYS_CHROOT"]));
        let parsed: libcontainer::oci_spec::runtime::LinuxSeccomp = serde_json::from_value(profile).unwrap();
        assert!(parsed.syscalls().as_ref().unwrap().len() > 5);
    }
}
