<?php
// SPDX-License-Identifier: GPL-2.0-or-later
// Answers as WebApp's index.php does: session cookie, login form, redirections, X-Zarafa-Hresult.
// What is wrong with it today stands in the file that the environment names.
$state = trim(file_get_contents(getenv('WEBAPP_STATE')));
session_name('KOPANO_WEBAPP');
session_start();
$here = rtrim(dirname($_SERVER['PHP_SELF']), '/') . '/';

if ($state === 'invalid') {
	echo '<html><body><h1>Invalid configuration</h1><p>php-mapi extension was not found.</p></body></html>';
	exit;
}
if ($state === 'fatal') {
	http_response_code(500);
	exit;
}
if ($state === 'hang' && !isset($_GET['now'])) {
	while (trim(file_get_contents(getenv('WEBAPP_STATE'))) === 'hang') {
		usleep(10000);
	}
}
if ($state === 'oidc') {
	header('X-Kopano-OIDCAuth: true');
	echo '<html><script src="oidc.js"></script></html>';
	exit;
}
if (isset($_GET['logout'])) {
	session_destroy();
	header('Location: ' . $here, true, 303);
	exit;
}
$error = '';
if (isset($_POST['username'], $_POST['password'])) {
	if ($state === 'away') {
		header('X-Zarafa-Hresult: MAPI_E_NETWORK_ERROR');
		$error = 'Kann keine Verbindung herstellen.';
	} elseif ($_POST['username'] === 'user1' && $_POST['password'] === 's3cret & more') {
		$_SESSION['username'] = $_POST['username'];
		header('Location: ' . $here, true, 303);
		exit;
	} else {
		header('X-Zarafa-Hresult: MAPI_E_LOGON_FAILED');
		$error = 'Anmeldung fehlgeschlagen.';
	}
}
if (isset($_SESSION['username'])) {
	header('X-Zarafa: 6.0.0');
	echo '<html><body class="zarafa-webclient">Posteingang</body></html>';
	exit;
}
?><!DOCTYPE html>
<html><head><title>Webmail</title></head><body class="login theme-basic">
<form action="?logon" method="post"><div id="error"><?php echo $error; ?></div>
<input type="text" name="username" id="username"/><input type="password" name="password" id="password"/>
</form></body></html>
