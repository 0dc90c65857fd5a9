//! Users and groups, read from `/etc/passwd` and `/etc/group`.
//!
//! Owns the two file formats. It does not use the name service switch (NSS): a static program
//! cannot load NSS modules, and the users of a guest that runs jobs are in these files.

use std::collections::HashMap;
use std::{fs, io};

/// A user that a command can run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
    /// All groups; the primary group is first.
    pub(crate) groups: Vec<u32>,
}

/// Why a user or group was not found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("cannot read /etc/passwd")]
    Unreadable(#[source] io::Error),
    #[error("there is no user '{0}' in /etc/passwd")]
    UnknownUser(String),
    #[error("there is no group '{0}' in /etc/group")]
    UnknownGroup(String),
}

impl Account {
    /// Finds `USER[:GROUP]`, each by name or number.
    ///
    /// If both are numbers, neither needs to be in the files, as with containers.
    pub(crate) fn find(user: &str) -> Result<Self, AccountError> {
        let passwd = fs::read("/etc/passwd").map_err(AccountError::Unreadable)?;
        let group = fs::read("/etc/group").unwrap_or_default();
        let (passwd, group) = (String::from_utf8_lossy(&passwd), String::from_utf8_lossy(&group));
        let (name, own_group) = match user.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (user, None),
        };
        let unknown = || AccountError::UnknownUser(name.to_owned());
        let mut account = match (Self::parse(name, &passwd, &group), own_group) {
            (Some(account), _) => account,
            (None, Some(_)) => Self::numbered(name.parse().map_err(|_| unknown())?),
            (None, None) => return Err(unknown()),
        };
        if let Some(wanted) = own_group {
            let gid = group_number(wanted, &group);
            account.gid = gid.ok_or_else(|| AccountError::UnknownGroup(wanted.to_owned()))?;
            account.groups = vec![account.gid];
        }
        Ok(account)
    }

    /// A user that is known only by its number.
    fn numbered(uid: u32) -> Self {
        let (name, home) = (uid.to_string(), "/".to_owned());
        Self { name, uid, gid: uid, home, groups: vec![uid] }
    }

    fn parse(user: &str, passwd: &str, group: &str) -> Option<Self> {
        let number: Option<u32> = user.parse().ok();
        let users = || passwd.lines().filter_map(user_line);
        let by_name = users().find(|account| account.name == user);
        let mut account =
            by_name.or_else(|| users().find(|account| Some(account.uid) == number))?;
        for line in group.lines() {
            let mut fields = line.split(':').skip(2);
            let gid = fields.next().and_then(|gid| gid.parse().ok());
            let member = fields.next().is_some_and(|m| m.split(',').any(|m| m == account.name));
            if let Some(gid) = gid
                && member
                && !account.groups.contains(&gid)
            {
                account.groups.push(gid);
            }
        }
        Some(account)
    }
}

/// The names in `/etc/passwd` or `/etc/group` by their numbers.
///
/// If two names have the same number, the first counts.
pub(crate) fn names_by_id(file: &str) -> HashMap<u32, String> {
    let file = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&file);
    let mut names = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty());
        let number = fields.nth(1).and_then(|number| number.parse().ok());
        if let (Some(name), Some(number)) = (name, number) {
            names.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    names
}

/// The number of a group that is given by name or by number.
fn group_number(wanted: &str, group: &str) -> Option<u32> {
    let by_name = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        (name == wanted).then_some(gid)
    });
    by_name.or_else(|| wanted.parse().ok())
}

fn user_line(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1).filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
    Some(Account { name, uid, gid, home, groups: vec![gid] })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\n# a comment\nbroken:x:none\n\
        builder:x:1000:100:Builder,,,:/home/builder:/bin/sh\n7:x:8:8::/:/bin/sh\nbare:x:7:7::\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:builder\ndocker:x:998:alice,builder\nkvm:x:5:ali\nbad:x:y:builder\n";

    #[test]
    fn a_user_has_all_its_groups() {
        let account = Account::parse("builder", PASSWD, GROUP).unwrap();
        assert_eq!((account.uid, account.gid, account.home.as_str()), (1000, 100, "/home/builder"));
        assert_eq!(account.groups, [100, 998]);
        assert_eq!(Account::parse("1000", PASSWD, GROUP).unwrap(), account);
    }

    #[test]
    fn a_group_has_a_name_or_a_number() {
        assert_eq!(group_number("users", GROUP), Some(100));
        assert_eq!(group_number("4", GROUP), Some(4));
        assert_eq!(group_number("none", GROUP), None);
        let both = Account::find("4242:17").unwrap();
        assert_eq!((both.uid, both.gid, both.groups), (4242, 17, vec![17]));
        assert!(matches!(Account::find("4242"), Err(AccountError::UnknownUser(_))));
        assert!(matches!(Account::find("root:none"), Err(AccountError::UnknownGroup(_))));
        assert_eq!(names_by_id("/etc/passwd").get(&0).map(String::as_str), Some("root"));
    }

    #[test]
    fn a_name_wins_over_a_number_and_an_empty_home_is_the_root() {
        assert_eq!(Account::parse("7", PASSWD, GROUP).unwrap().uid, 8);
        assert_eq!(Account::parse("bare", PASSWD, GROUP).unwrap().home, "/");
        for missing in ["missing", "", "broken", "4242", "# a comment"] {
            assert_eq!(Account::parse(missing, PASSWD, GROUP), None, "{missing}");
        }
    }

    proptest! {
        #[test]
        fn no_file_panics(user in ".{0,8}", passwd in "[a:0\n,]{0,80}", group in "[a:0\n,]{0,80}") {
            let _ = Account::parse(&user, &passwd, &group);
        }
    }
}
