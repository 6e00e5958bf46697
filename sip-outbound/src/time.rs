//! Deadlines, by the words the whole workspace uses.

pub(crate) use stun_proto::time::{Clock, Timers, deadline, elapsed};
