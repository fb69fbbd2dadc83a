//! cutover-conductor
