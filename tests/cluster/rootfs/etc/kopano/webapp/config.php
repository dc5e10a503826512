<?php
// WebApp runs on both nodes and talks to the server by the cluster's address.
define("DEFAULT_SERVER", "http://192.168.122.100:236/kopano");
