<?php
// SPDX-License-Identifier: GPL-2.0-or-later
// WebApp's own file has many more lines. Keep it, and change these two in it, on both nodes: docs/guide.md.

// WebApp runs on both nodes, the server on one of them: its cluster address, never "default:".
define("DEFAULT_SERVER", "http://192.168.122.100:236/kopano");

// A login needs https, or a load balancer that ended TLS and says so (X-Forwarded-Proto: https); plain http is
// answered with 400. WebApp before 5.0 calls it define("INSECURE_COOKIES", false).
define("SECURE_COOKIES", true);
