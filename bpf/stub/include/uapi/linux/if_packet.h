/* Empty: included by BCC, used by nothing of ours. */
