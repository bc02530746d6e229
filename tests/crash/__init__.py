"""Lives of the real program that end too early: killed, failed, raced, resumed. Judged by the twin's own log."""
