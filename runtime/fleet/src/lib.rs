//! cutover-fleet
