<?php
// SPDX-License-Identifier: GPL-2.0-or-later
// Stand-in for Kopano WebApp's login page: the form's fields are WebApp's, and like WebApp's it is shown
// without a word to the server, and to https only.
require "/etc/kopano/webapp/config.php";
$protocol = $_SERVER["HTTP_X_FORWARDED_PROTO"] ?? (empty($_SERVER["HTTPS"]) ? "http" : "https");
if (SECURE_COOKIES && $protocol == "http") {
    header("HTTP/1.0 400 Bad Request");
    exit("Rejected insecure request");
}
?>
<!DOCTYPE html>
<html>
<head><title>Kopano WebApp</title></head>
<body class="login theme-default">
<form action="?" method="post">
<input type="text" name="username" id="username">
<input type="password" name="password" id="password">
<input id="submitbutton" class="button" type="submit" value="Sign in">
</form>
</body>
</html>
