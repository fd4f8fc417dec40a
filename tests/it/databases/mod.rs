//! Databases: the check of each kind with real servers.

mod redis;
mod mariadb;
