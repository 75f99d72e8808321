//! What memory the control group leaves this process (Documentation/admin-guide/cgroup-v2.rst, and cgroup-v1/memory.rst): a
//! container's limit is one, and who goes beyond it is killed.

use std::path::Path;

/// Where groups are, of the second version.
const ROOT: &str = "/sys/fs/cgroup";
/// Where those of the first version are that bound memory.
const ROOT_V1: &str = "/sys/fs/cgroup/memory";

/// Names of the files of one version.
struct Files {
    limit: &'static str,
    used: &'static str,
    /// The line of `memory.stat` that says what of it can be taken back: what was read of files a while ago.
    cache: &'static str,
}

const V1: Files =
    Files { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", cache: "total_inactive_file" };
const V2: Files = Files { limit: "memory.max", used: "memory.current", cache: "inactive_file" };

/// Bytes that the groups of this process leave it, the narrowest one's. None: none has a limit.
pub(super) fn available() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    available_in(&groups, Path::new(ROOT), Path::new(ROOT_V1))
}

/// The same of `groups`, as /proc/self/cgroup has them, beneath the roots of both versions.
fn available_in(groups: &str, v2: &Path, v1: &Path) -> Option<u64> {
    let each = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        match controllers {
            "" => least(v2, path, &V2),
            _ if controllers.split(',').any(|one| one == "memory") => least(v1, path, &V1),
            _ => None,
        }
    });
    each.min()
}

/// What the group at `path` leaves, or one it is in. One that is not there, as in a namespace of its own, bounds nothing.
fn least(root: &Path, path: &str, files: &Files) -> Option<u64> {
    let whole = root.join(path.trim_start_matches('/'));
    let groups = whole.ancestors().take_while(|group| group.starts_with(root));
    groups.filter_map(|group| left(group, files)).min()
}

fn left(group: &Path, files: &Files) -> Option<u64> {
    let number = |file: &str| std::fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    // "max" is no number: no limit.
    let limit = number(files.limit)?;
    let used = number(files.used).unwrap_or_default();
    let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let cache = stat.lines().find_map(|line| line.strip_prefix(files.cache)?.trim().parse::<u64>().ok());
    Some(limit.saturating_sub(used.saturating_sub(cache.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(path: &Path, files: &[(&str, &str)]) {
        std::fs::create_dir_all(path).unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(path.join(name), text).unwrap());
    }

    #[test]
    fn the_narrowest_group_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (v2, v1) = (folder.path().join("two"), folder.path().join("one"));
        group(&v2, &[]);
        group(&v2.join("pods"), &[("memory.max", "1000\n"), ("memory.current", "700\n")]);
        let stat = "file 500\ninactive_file_of_others 9\ninactive_file 100\n";
        let own = [("memory.max", "900\n"), ("memory.current", "300\n"), ("memory.stat", stat)];
        group(&v2.join("pods/engine"), &own);
        let left = |groups: &str| available_in(groups, &v2, &v1);
        assert_eq!(left("0::/pods/engine\n"), Some(300), "the one around it is fuller");
        group(&v2.join("pods"), &[("memory.max", "max\n")]);
        assert_eq!(left("0::/pods/engine\n"), Some(700), "what can be taken back is free");
        assert_eq!(left("0::/pods\n"), None);
        assert_eq!(left("0::/elsewhere\n"), None);
        let limit = [("memory.limit_in_bytes", "400"), ("memory.usage_in_bytes", "150")];
        group(&v1.join("a"), &limit);
        assert_eq!(left("7:cpu,memory:/a\n3:pids:/b\n0::/pods/engine\n"), Some(250));
        assert_eq!(left(""), None);
    }
}
