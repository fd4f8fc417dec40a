//! Pools and listeners for PostgreSQL, MariaDB and Redis, mostly with real servers.

mod endings;
mod refused_checks;
mod reported;
mod primary;
mod incomplete_checks;
mod redis;
mod sentinels;
mod strays;
mod redis_checks;
mod remembered;
mod own_primary;
mod mariadb;
mod refused_clients;
mod postgres_names;
mod postgres_cancels;
mod postgres_decrypted;
mod postgres_restarts;
