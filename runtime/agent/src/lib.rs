//! cutover-agent
