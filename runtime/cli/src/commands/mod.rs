//! One file per command; the orders that only name a release share `order`.

pub(crate) mod agent;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod delete;
pub(crate) mod deploy;
pub(crate) mod drive;
pub(crate) mod follow;
pub(crate) mod history;
pub(crate) mod init;
pub(crate) mod local;
pub(crate) mod lock;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod order;
pub(crate) mod pause;
pub(crate) mod plugin;
pub(crate) mod redeploy;
pub(crate) mod resume;
pub(crate) mod retry;
pub(crate) mod rollback;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod show;
pub(crate) mod stop;
pub(crate) mod watch;
