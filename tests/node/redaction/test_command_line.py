"""Command lines as people type them: what is secret in them is masked, all else stays."""

from __future__ import annotations

import shlex
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrasight.node.redaction.command_line import DEPTH, masked
from infrasight.node.redaction.redactor import HINTS
from infrasight.node.redaction.rules import MASK

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
# Written in two parts, so that nobody who looks for lost keys finds these.
GITHUB, GITLAB, SLACK = "ghp_" + "a1B2c3D4e5" * 4, "glpat-" + "x1y2z3w4v5u6t7s8r9q0", "xoxb-" + "123456789012-abcdefABCDEF"
AWS, GOOGLE, OPENAI = "AKIA" + "IOSFODNN7EXAMPLE", "AIza" + "SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q", "sk-proj-" + "Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8"
NPM, PYPI, VAULT = "npm_" + "a1B2c3D4e5" * 4, "pypi-AgE" + "IcHlwaS5vcmcCJDAwMDAwMDAwLTAwMDAtMDAwMC0wMDAw", "hvs." + "CAESIJ1a2b3c4d5e6f7g8h9i"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"

SECRET: tuple[tuple[str, str], ...] = (
    # curl, wget
    ("curl -u alice:hunter2 https://example.com", "curl -u alice:*** https://example.com"),
    ("curl -sSLu alice:hunter2 https://example.com", "curl -sSLu alice:*** https://example.com"),
    ("curl -ualice:hunter2 -o out https://example.com", "curl -ualice:*** -o out https://example.com"),
    ("curl --user=alice:hunter2 --proxy-user bob:hunter2 x", "curl --user=alice:*** --proxy-user bob:*** x"),
    ("curl -H 'Authorization: Bearer hunter2' x", "curl -H 'Authorization: Bearer ***' x"),
    ("curl -H 'authorization: Basic aHVudGVyMg==' x", "curl -H 'authorization: Basic ***' x"),
    ("curl --header 'X-Api-Key: hunter2' -H 'Accept: text/html' x", "curl --header 'X-Api-Key: ***' -H 'Accept: text/html' x"),
    ("curl -HPRIVATE-TOKEN:hunter2 x", "curl -HPRIVATE-TOKEN:*** x"),
    ("curl -H 'Cookie: sid=hunter2; a=b' x", "curl -H 'Cookie: ***' x"),
    ("curl -b sid=hunter2 x", "curl -b sid=*** x"),
    ("curl --oauth2-bearer hunter2 x", "curl --oauth2-bearer *** x"),
    ("curl -E cert.pem:hunter2 --pass hunter2 x", "curl -E cert.pem:*** --pass *** x"),
    ("curl -d 'user=a&password=hunter2&x=1' x", "curl -d 'user=a&password=***&x=1' x"),
    ("""curl -d '{"user":"a","password":"hunter2","n":1}' x""", """curl -d '{"user":"a","password":"***","n":1}' x"""),
    ("""curl -d '{"pass\\"word":1,"apiKey" : "hun\\"ter2"}' x""", """curl -d '{"pass\\"word":1,"apiKey" : "***"}' x"""),
    ("""curl -d '{\\"secret\\":\\"hunter2\\",\\"x\\":1}' x""", """curl -d '{\\"secret\\":\\"***\\",\\"x\\":1}' x"""),
    ("curl 'https://x/y?access_token=hunter2&b=c'", "curl 'https://x/y?access_token=***&b=c'"),
    ("curl 'https://x/y?b=c&api_key=hunter2#z'", "curl 'https://x/y?b=c&api_key=***'"),
    ("curl 'https://acc.blob.example/c?sv=2020&sig=hunter2%3D'", "curl 'https://acc.blob.example/c?sv=2020&sig=***'"),
    ("curl https://hooks.slack.com/services/" + "T00000000/B00000000/XXXXXXXXXXXX", "curl https://hooks.slack.com/services/***"),
    ("wget --user bob --password hunter2 x", "wget --user bob --password *** x"),
    ("wget --header='Authorization: token hunter2' x", "wget --header='Authorization: token ***' x"),
    ("wget ftp://bob:hunter2@example.com/f", "wget ftp://bob:***@example.com/f"),
    ("wget --http-password=hunter2 x", "wget --http-password=*** x"),
    # databases
    ("mysql -uroot -phunter2 db", "mysql -uroot -p*** db"),
    ("mysql -u root -p hunter2", "mysql -u root -p ***"),
    ("/usr/bin/mysqldump --password=hunter2 --all-databases", "/usr/bin/mysqldump --password=*** --all-databases"),
    ("mariadb-dump -h db -phunter2 x", "mariadb-dump -h db -p*** x"),
    ("psql postgres://bob:hunter2@db:5432/x", "psql postgres://bob:***@db:5432/x"),
    ("psql 'host=db user=bob password=hunter2 dbname=x'", "psql 'host=db user=bob password=*** dbname=x'"),
    ("""psql "host=db password='hun ter2' dbname=x" """, """psql "host=db password='***' dbname=x" """),
    ("mongosh 'mongodb+srv://bob:p%40ss@db/x?retryWrites=true'", "mongosh 'mongodb+srv://bob:***@db/x?retryWrites=true'"),
    ("mongo -u bob -p hunter2 --authenticationDatabase admin", "mongo -u bob -p *** --authenticationDatabase admin"),
    ("redis-cli -h db -a hunter2 ping", "redis-cli -h db -a *** ping"),
    ("redis-cli -u redis://:hunter2@db:6379/0", "redis-cli -u redis://:***@db:6379/0"),
    ("redis-cli CONFIG SET requirepass hunter2", "redis-cli CONFIG SET requirepass ***"),
    ("sqlcmd -S db -U sa -P hunter2 -Q 'select 1'", "sqlcmd -S db -U sa -P *** -Q 'select 1'"),
    ("sqlplus scott/hunter2@orcl", "sqlplus scott/***@orcl"),
    ("app 'Server=db;User Id=sa;Password=hun,ter2;Encrypt=true'", "app 'Server=db;User Id=sa;Password=***;Encrypt=true'"),
    ("app --dsn 'bob:hunter2@tcp(db:3306)/x'", "app --dsn 'bob:***@tcp(db:3306)/x'"),
    ("psql -c \"ALTER USER bob WITH PASSWORD 'hunter2'\"", "psql -c \"ALTER USER bob WITH PASSWORD '***'\""),
    ("mysql -e \"CREATE USER 'a'@'%' IDENTIFIED BY 'hunter2'\"", "mysql -e \"CREATE USER 'a'@'%' IDENTIFIED BY '***'\""),
    # containers and clouds
    ("docker login -u bob -p hunter2 reg.example", "docker login -u bob -p *** reg.example"),
    ("docker run -p 80:80 -e MYSQL_ROOT_PASSWORD=hunter2 -e A=b mysql:8", "docker run -p 80:80 -e MYSQL_ROOT_PASSWORD=*** -e A=b mysql:8"),
    ("docker exec -it db mysql -uroot -phunter2", "docker exec -it db mysql -uroot -p***"),
    ("docker build --build-arg NPM_TOKEN=hunter2 .", "docker build --build-arg NPM_TOKEN=*** ."),
    ("skopeo copy --src-creds bob:hunter2 --dest-creds=bob:hunter2 a b", "skopeo copy --src-creds bob:*** --dest-creds=bob:*** a b"),
    ("kubectl --token hunter2 get pods", "kubectl --token *** get pods"),
    ("kubectl create secret generic x --from-literal=user=hunter2", "kubectl create secret generic x --from-literal=user=***"),
    ("helm install x . --set db.password=hunter2,replicas=3", "helm install x . --set db.password=***,replicas=3"),
    ("aws configure set aws_secret_access_key hunter2", "aws configure set aws_secret_access_key ***"),
    (f"env AWS_ACCESS_KEY_ID={AWS} AWS_SECRET_ACCESS_KEY=hunter2 aws s3 ls", "env AWS_ACCESS_KEY_ID=AKIA*** AWS_SECRET_ACCESS_KEY=*** aws s3 ls"),
    ("aws s3 cp 's3://b/k?X-Amz-Signature=hunter2&X-Amz-Date=2020' .", "aws s3 cp 's3://b/k?X-Amz-Signature=***&X-Amz-Date=2020' ."),
    ("aws rds create-db-instance --master-user-password hunter2 --engine x", "aws rds create-db-instance --master-user-password *** --engine x"),
    ("az login --service-principal -u app -p hunter2 --tenant t", "az login --service-principal -u app -p *** --tenant t"),
    ("/opt/az/bin/python3 -Im azure.cli login -u a -p hunter2", "/opt/az/bin/python3 -Im azure.cli login -u a -p ***"),
    ("az storage blob list --account-key hunter2", "az storage blob list --account-key ***"),
    (
        "az x --connection-string 'AccountName=a;AccountKey=hunter2==;EndpointSuffix=core'",
        "az x --connection-string 'AccountName=a;AccountKey=***;EndpointSuffix=core'",
    ),
    ("gcloud sql users set-password root --password=hunter2", "gcloud sql users set-password root --password=***"),
    ("az keyvault secret set --name x --value hunter2", "az keyvault secret set --name x --value ***"),
    ("aws ssm put-parameter --name x --value hunter2", "aws ssm put-parameter --name x --value ***"),
    ("aws secretsmanager create-secret --secret-string hunter2", "aws secretsmanager create-secret --secret-string ***"),
    ("rclone config create x s3 secret_access_key hunter2", "rclone config create x s3 secret_access_key ***"),
    ("vault login hunter2", "vault login ***"),
    ("vault kv put secret/x user=bob password=hunter2", "vault kv put secret/x user=bob password=***"),
    ("terraform apply -var db_password=hunter2", "terraform apply -var db_password=***"),
    ("terraform apply -var=db_password=hunter2", "terraform apply -var=db_password=***"),
    # git, packages
    ("git clone https://oauth2:hunter2@gitlab.example/x/y.git", "git clone https://oauth2:***@gitlab.example/x/y.git"),
    (f"git clone https://{GITHUB}@github.com/x/y", "git clone https://***@github.com/x/y"),
    (f"git clone https://{GITHUB}:x-oauth-basic@github.com/x/y", "git clone https://***:***@github.com/x/y"),
    ("git -c 'http.extraHeader=Authorization: Basic hunter2' fetch", "git -c 'http.extraHeader=Authorization: Basic ***' fetch"),
    ("npm config set //registry.npmjs.org/:_authToken hunter2", "npm config set //registry.npmjs.org/:_authToken ***"),
    ("npm publish --//registry.npmjs.org/:_authToken=hunter2", "npm publish --//registry.npmjs.org/:_authToken=***"),
    ("pip install -i https://bob:hunter2@pypi.example/simple x", "pip install -i https://bob:***@pypi.example/simple x"),
    (f"twine upload -u __token__ -p {PYPI} x", "twine upload -u __token__ -p *** x"),
    (f"uv publish {PYPI}", "uv publish pypi-AgE***"),
    # keys, archives, logins
    ("openssl rsa -in k.pem -passin pass:hunter2 -passout pass:hunter2", "openssl rsa -in k.pem -passin pass:*** -passout pass:***"),
    ("openssl enc -aes-256-cbc -k hunter2 -in x", "openssl enc -aes-256-cbc -k *** -in x"),
    ("openssl passwd -6 hunter2", "openssl passwd -6 ***"),
    ("gpg --batch --passphrase hunter2 -c f", "gpg --batch --passphrase *** -c f"),
    ("ssh-keygen -t ed25519 -N hunter2 -f k", "ssh-keygen -t ed25519 -N *** -f k"),
    ("sshpass -p hunter2 ssh -p 22 host", "sshpass -p *** ssh -p 22 host"),
    ("sshpass -phunter2 scp -p a host:b", "sshpass -p*** scp -p a host:b"),
    ("keytool -genkey -storepass hunter2 -keypass hunter2", "keytool -genkey -storepass *** -keypass ***"),
    ("java -Djavax.net.ssl.keyStorePassword=hunter2 -jar x.jar", "java -Djavax.net.ssl.keyStorePassword=*** -jar x.jar"),
    ("java -Dspring.datasource.password=hunter2 X", "java -Dspring.datasource.password=*** X"),
    ("zip -P hunter2 a.zip b", "zip -P *** a.zip b"),
    ("7z a -phunter2 x.7z y", "7z a -p*** x.7z y"),
    ("htpasswd -bc /etc/x bob hunter2", "htpasswd -bc /etc/x bob ***"),
    ("useradd -m -p hunter2 bob", "useradd -m -p *** bob"),
    ("ldapsearch -x -D cn=a -w hunter2 -b dc=x", "ldapsearch -x -D cn=a -w *** -b dc=x"),
    ("smbclient //h/s -U bob%hunter2", "smbclient //h/s -U bob%***"),
    ("mount -t cifs //h/s /m -o username=x,password=hunter2,vers=3", "mount -t cifs //h/s /m -o username=x,password=***,vers=3"),
    ("nmcli dev wifi connect ssid password hunter2", "nmcli dev wifi connect ssid password ***"),
    ("snmpwalk -v2c -c hunter2 host", "snmpwalk -v2c -c *** host"),
    ("ansible-playbook -e 'ansible_password=hunter2 x=1' p.yml", "ansible-playbook -e 'ansible_password=*** x=1' p.yml"),
    ("rabbitmqctl add_user bob hunter2", "rabbitmqctl add_user bob ***"),
    ("lftp -u bob,hunter2 host", "lftp -u bob,*** host"),
    # shells and programs that run others
    ("env PGPASSWORD='hun ter2' psql -h db", "env PGPASSWORD=*** psql -h db"),
    ("find . -exec mysql -phunter2 x ;", "find . -exec mysql -p*** x ;"),
    ("ssh host mysql -phunter2 db", "ssh host mysql -p*** db"),
    ("sudo -u bob mysql -phunter2", "sudo -u bob mysql -p***"),
    ("sh -c 'PGPASSWORD=hunter2 psql -h db | tee x'", "sh -c 'PGPASSWORD=*** psql -h db | tee x'"),
    ("bash -lc 'cd /x && mysql -phunter2 db; curl -u a:hunter2 y'", "bash -lc 'cd /x && mysql -p*** db; curl -u a:*** y'"),
    ("""sh -c "curl -H 'Authorization: Bearer hunter2' x" """, """sh -c "curl -H 'Authorization: Bearer ***' x" """),
    ("""sh -c 'x="$(mysql -phunter2 db)"; y=`curl -u a:hunter2 z`'""", """sh -c 'x="$(mysql -p*** db)"; y=`curl -u a:*** z`'"""),
    ("""bash -c "sudo sh -c 'mysql -phunter2 db'" """, """bash -c "sudo sh -c 'mysql -p*** db'" """),
    ("sh -c \"export TOKEN='hunter2' A=b\"", "sh -c \"export TOKEN=*** A=b\""),
    ("ssh host 'mysql -phunter2 db'", "ssh host 'mysql -p*** db'"),
    ("su - bob -c 'redis-cli -a hunter2'", "su - bob -c 'redis-cli -a ***'"),
    ("timeout 5 docker exec c sh -c 'mysqladmin -phunter2 ping'", "timeout 5 docker exec c sh -c 'mysqladmin -p*** ping'"),
    ("python3 -c \"connect(password='hunter2', user='bob')\"", "python3 -c \"connect(password='***', user='bob')\""),
    ("""ruby -e "x = { :password => 'hunter2', a: 1 }" """, """ruby -e "x = { :password => '***', a: 1 }" """),
    # keys by their shape, wherever they stand
    (f"echo {GITHUB} {GITLAB}", "echo ghp_*** glpat-***"),
    (f"notify {SLACK}", "notify xoxb-***"),
    (f"x --url=https://maps.example/{GOOGLE}/y", "x --url=https://maps.example/AIza***/y"),
    (f"llm ask {OPENAI}", "llm ask sk-proj-***"),
    (f"x {NPM} {VAULT} {JWT}", "x npm_*** hvs.*** eyJ***"),
    ("curl https://discord.com/api/webhooks/" + "123456789012345678/abcDEF-abcDEF", "curl https://discord.com/api/webhooks/***"),
    ("curl https://api.telegram.org/bot" + "123456789:BCdefGhIJKlmNoPQRsTUVwxyZ0123456789/getMe", "curl https://api.telegram.org/bot123456789:***/getMe"),
    ("bot 123456789:AA" + "defGhIJKlmNoPQRsTUVwxyZ012345678", "bot 123456789:AA***"),
    ("tailscale up --auth tskey-auth-" + "k1a2b3c4d5e6f7g8", "tailscale up --auth tskey-***"),
    ("""x '{"auths":{"reg":{"auth":"Ym9iOmh1bnRlcjI="}}}'""", """x '{"auths":{"reg":{"auth":"***"}}}'"""),
    (f"x '{PEM}'", "x '-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----'"),
    # names
    ("x --clientSecret hunter2 --dbPass=hunter2 --auth-token=hunter2", "x --clientSecret *** --dbPass=*** --auth-token=***"),
    ("x -password hunter2 --pw hunter2 --ssh-pass hunter2", "x -password *** --pw *** --ssh-pass ***"),
    ("x MYSQL_PWD=hunter2 SECRET_KEY=hunter2 TOKEN=hunter2", "x MYSQL_PWD=*** SECRET_KEY=*** TOKEN=***"),
    ("make deploy user[password]=hunter2", "make deploy user[password]=***"),
    ("imapsync --password1 hunter2 --password2 hunter2", "imapsync --password1 *** --password2 ***"),
    ("env PASSWORD_1=hunter2 SECRET_KEY_BASE=hunter2 DEPLOY_KEY=hunter2 x", "env PASSWORD_1=*** SECRET_KEY_BASE=*** DEPLOY_KEY=*** x"),
    ("x --admin_pw hunter2 --adminpass=hunter2 --hmac-key hunter2", "x --admin_pw *** --adminpass=*** --hmac-key ***"),
    ("x --password:hunter2 /password:hunter2", "x --password:*** /password:***"),
    ("x 'Server=h;Uid=a;PWD=hunter2;Encrypt=1'", "x 'Server=h;Uid=a;PWD=***;Encrypt=1'"),
    # a value of another shape, or a name of another
    ("""x '{"token":["hunter2"],"secret":{"value":1}}'""", """x '{"token":["***"],"secret":{"value":1}}'"""),
    ("""node -e "f({apiKey:'hunter2', pwd: 'hunter2'})" """, """node -e "f({apiKey:'***', pwd: '***'})" """),
    ("""python3 -c 'os.environ["TOKEN"]="hunter2"'""", """python3 -c 'os.environ["TOKEN"]="***"'"""),
    ("""python3 -c "get(u, auth=('bob', 'hunter2'))" """, """python3 -c "get(u, auth=('bob', '***'))" """),
    ("""mongo --eval "db.auth('bob','hunter2')" """, """mongo --eval "db.auth('bob','***')" """),
    ("""x '{"Authorization":"Bearer hunter2","n":1}'""", """x '{"Authorization":"Bearer ***","n":1}'"""),
    ("""x '{\\"Authorization\\": \\"hunter2\\"}'""", """x '{\\"Authorization\\": \\"***\\"}'"""),
    ("x '-----BEGIN PGP PRIVATE KEY BLOCK-----\nhunter2'", "x '-----BEGIN PGP PRIVATE KEY BLOCK-----***'"),
    ("mysql -e \"SET PASSWORD FOR 'a'@'%' = PASSWORD('hunter2')\"", "mysql -e \"SET PASSWORD FOR 'a'@'%' = PASSWORD('***')\""),
    ("mysql -e 'ALTER USER a IDENTIFIED WITH \"x\" AS \"hunter2\"'", "mysql -e 'ALTER USER a IDENTIFIED WITH \"x\" AS \"***\"'"),
    ("psql 'postgres://bob:a/b?c#hunter2@db:5432/x?y=1'", "psql 'postgres://bob:***@db:5432/x?y=1'"),
    # more programs
    ("curl -x bob:hunter2@proxy:3128 bob:hunter2@h/x", "curl -x bob:***@proxy:3128 bob:***@h/x"),
    ("http -a bob:hunter2 h X-API-Token:hunter2", "http -a bob:*** h X-API-Token:***"),
    ("redis-cli -h db AUTH default hunter2", "redis-cli -h db AUTH default ***"),
    ("redis-cli ACL SETUSER bob on '>hunter2' allkeys", "redis-cli ACL SETUSER bob on '>***' allkeys"),
    ("mysqladmin -u root password hunter2", "mysqladmin -u root password ***"),
    ("skopeo login -u bob -p hunter2 reg", "skopeo login -u bob -p *** reg"),
    ("ctr images pull --user bob:hunter2 x", "ctr images pull --user bob:*** x"),
    ("openssl dgst -sha256 -hmac hunter2 -macopt hexkey:hunter2 f", "openssl dgst -sha256 -hmac *** -macopt hexkey:*** f"),
    ("zip -rP hunter2 a.zip b", "zip -rP *** a.zip b"),
    ("useradd -mp hunter2 bob", "useradd -mp *** bob"),
    ("qpdf --encrypt hunter2 hunter2 256 -- a b", "qpdf --encrypt *** *** 256 -- a b"),
    ("cargo login hunter2", "cargo login ***"),
    ("vault operator unseal hunter2", "vault operator unseal ***"),
    ("gh secret set NAME --body hunter2", "gh secret set NAME --body ***"),
    ("fly secrets set A=hunter2 B=hunter2", "fly secrets set A=*** B=***"),
    ("mc alias set name https://h id hunter2", "mc alias set name https://h id ***"),
    ("composer config http-basic.h bob hunter2", "composer config http-basic.h bob ***"),
    ("psexec.py DOM/bob:hunter2@h", "psexec.py DOM/bob:***@h"),
    ("neo4j-admin dbms set-initial-password hunter2", "neo4j-admin dbms set-initial-password ***"),
    # what one command prints for another
    ("sh -c 'echo hunter2 | sudo -S ls'", "sh -c 'echo *** | sudo -S ls'"),
    ("bash -c \"echo -n 'hunter2' | docker login -u a --password-stdin\"", "bash -c 'echo -n *** | docker login -u a --password-stdin'"),
    ("sh -c 'cd /x; echo bob:hunter2|sudo chpasswd'", "sh -c 'cd /x; echo bob:***|sudo chpasswd'"),
    ("sh -c 'printf %s hunter2 | kinit bob'", "sh -c 'printf %s *** | kinit bob'"),
)  # fmt: skip

HARMLESS = """
ls -p
ls -la --color=auto /home/bob/token
mkdir -p secret
mkdir -p /etc/secrets/password
cp -p a b
cp -a /var/lib/token/secret.key /backup/
ssh -p 22 host
ssh -i /home/bob/.ssh/id_rsa bob@host uptime
scp -P 2222 a bob@host:b
ps -u root -o pid,comm
id -u bob
grep -r password .
grep -rn --include=*.py token= src
grep -E '(secret|token)' file
find / -name '*password*' -newer key
git log --author=alice --oneline
git log --grep=secret
git commit -m 'token: handle an empty password'
git commit -m 'Fix password handling, add tokens'
git clone https://github.com/x/y.git
git clone git@github.com:x/token.git
git clone ssh://git@github.com/x/y
git config credential.helper store
git push origin feature/secret-key
docker pull repo/token:latest
docker run -p 8080:80 -u 1000:1000 img@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
docker run --name mysql -p 3306:3306 -d mysql:8
docker run -d --name mongo -v /x:/y mongo
docker exec mysql ls -p
sudo -u postgres psql -p 5433
docker build --secret id=npm,src=/root/.npmrc .
docker login --username bob --password-stdin
docker secret ls
kubectl get secret my-token -o yaml
kubectl create token bob
kubectl auth can-i get secrets
helm upgrade x --set image.tag=1.2
aws secretsmanager get-secret-value --secret-id prod/db
aws s3 cp s3://bucket/key .
gcloud auth print-access-token
vault kv get secret/x
openssl rsa -in key.pem -passin file:/run/pw -passout env:PW
openssl x509 -in cert.pem -noout -pubkey
openssl dgst -sha256 file
sha256sum -c e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
kill -TERM 1234
gpg --batch --passphrase-file /run/pw -c f
gpg --keyserver hkps://keys.openpgp.org --recv-keys 0123456789ABCDEF0123456789ABCDEF01234567
apt-key list
ssh-keygen -t ed25519 -N '' -f k
ssh-add -l
passwd root
pass show mail/x
chage -l bob
usermod -aG docker bob
ansible-playbook --ask-pass --ask-become-pass site.yml
ansible-playbook --private-key=/home/bob/.ssh/id_rsa site.yml --list-tasks
rsync --password-file=/etc/rsync.pw -e 'ssh -p 22' a host:b
mysql -u root db
mysql --defaults-file=/root/.my.cnf -P 3306 -h db
mysqldump --single-transaction db
psql -U bob -p 5432 -h db -c 'select 1'
redis-cli -h db -p 6379 get user:1:token
mongo --port 27017 --authenticationDatabase admin
curl -fsSL https://example.com:8080/@scope/pkg
curl --user-agent Mozilla:5 -o out https://example.com/password
curl -X POST -H 'Content-Type: application/json' -d '{"a":"b"}' x
curl -u bob https://example.com
curl --cert-type PEM --key /etc/ssl/key.pem https://example.com
wget -q https://example.com/token/secret.tar.gz
7z a -p x.7z y
tar --exclude=token-cache -czf x.tgz dir
sort --key=2 file
python3 train.py --max-tokens 100 --tokenizer bert --eos-token-id 2
python3 -m pip install --require-hashes -r requirements.txt
pip install tokenizers==0.15 keyring passlib
npm install --save-dev jsonwebtoken
java -Djava.security.egd=file:/dev/urandom -jar authenticator.jar
env PWD=/home/bob OLDPWD=/ SSH_ASKPASS=/usr/bin/x SSH_AUTH_SOCK=/tmp/x TOKENIZERS_PARALLELISM=false cmd
env PASSWORD_STORE_DIR=/x XAUTHORITY=/x KEYBOARD=us cmd
sh -c 'mysql -p"$DB_PASSWORD" db'
sh -c 'curl -H "X-A: b" "https://x/?page=2&sort=key"; echo done'
sh -c 'test -n "$TOKEN" && echo "set the password first"'
bash -c 'for f in *.key; do echo "$f"; done'
app --session 123e4567-e89b-12d3-a456-426614174000
app --no-password --use-token x --with-secret y
app --password --verbose
app --password=
app --secret=true --token=none --password-file=/run/pw --token-ttl 3600 --key-type rsa
app --author bob --authority x --passive --bypass=1 --compass north
app --basic understanding --bearer of-news
cc -DTOKENS=5 -Wl,-rpath,/x passwd.c -o passwd
sed -n '/token/p' file
awk -F: '{print $1}' /etc/passwd
journalctl -u ssh --since today
systemctl start getty@tty1.service
nc -p 80 -w 5 host 80
tcpdump -i any port 53
task-learn-something-rather-long-and-boring-here
disk-abcdefghijklmnopqrstuvwxyz0123456789
http://localhost:8080/path@2x.png?x=1&y=2
mail -s 'Your secret santa' bob@example.com
curl -d '{"secret":{"name":"x"},"passwords":[],"token":{}}' x
curl 'http://[::1]:8080/@x' 'http://h:80/?q=a@b' http://h:80/a?mail=b@c.d
docker run -v /secret:/secret my-token:latest
sh -c 'PASSWORD=$(cat /run/pw) TOKEN="${TOKEN:-}" x'
sh -c 'echo "$TOKEN" | docker login -u bob --password-stdin'
sh -c 'echo done || passwd bob'
sh -c 'echo password | grep -S x'
bash -c 'read -s -p "Password: " x; echo "token: $x"'
keytool -storepass:env PW
cmake -DUSE_TOKEN=ON .
unzip -p a.zip f
redis-cli get auth
usermod -aGsupport bob
x '{"auth":"basic"}' 12:34:AAbb
apt-get install dapi-tools telegram-bot
""".strip().splitlines()


def run(line: str, **options: bool) -> tuple[list[str], Counter[str]]:
    counts: Counter[str] = Counter()
    return [word.decode() for word in masked([word.encode() for word in shlex.split(line)], counts, **options)], counts


@pytest.mark.parametrize(("line", "expected"), SECRET, ids=[line for line, _ in SECRET])
def test_secrets(line: str, expected: str) -> None:
    words, counts = run(line)
    assert words == shlex.split(expected)
    assert "hunter2" not in " ".join(words)
    assert sum(counts.values()) >= 1
    assert run(shlex.join(words)) == (words, Counter()), "what was masked once stays as it is"
    assert any(hint in line.lower().encode() for hint in HINTS), "it would not even have been looked at"


@pytest.mark.parametrize("line", HARMLESS)
def test_no_false_alarms(line: str) -> None:
    assert run(line) == (shlex.split(line), Counter())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("psql postgres://bob:hunt", "psql postgres://bob:***"),
        ("x --password hun", "x --password ***"),
        (f"x {GITHUB[:9]}", "x ghp_***"),
        (f"x {JWT[:20]}", "x eyJ***"),
        ("curl -u bob:h", "curl -u bob:***"),
        ("sh -c 'curl https://bob:hunt", "sh -c 'curl https://bob:***'"),
        ("""curl -d '{"password":"hun""", """curl -d '{"password":"***'"""),
        ("x '-----BEGIN PRIVATE KEY-----\nMII", "x '-----BEGIN PRIVATE KEY-----***'"),
    ],
)
def test_the_end_was_cut_off(line: str, expected: str) -> None:
    """A secret of which only a beginning is there is masked too."""
    quote = "'" if line.count("'") % 2 else ""
    assert run(line + quote, cut=True)[0] == shlex.split(expected)


def test_only_the_end_is_taken_for_cut() -> None:
    assert run("x http://host:80 http://host:80/ ghp_ab y", cut=True)[0] == shlex.split("x http://host:80 http://host:80/ ghp_ab y")


def test_arguments_stay_apart() -> None:
    """Whatever is in them: empty ones, spaces, bytes that are no text, quotes that are never closed."""
    words = [b"\xff", b"", b"--password", b"hunter2 \xfe'\"", b"", b"--token=\xff", b"a b", b"sh", b"-c", b"'", b""]
    assert masked(words, Counter()) == [b"\xff", b"", b"--password", MASK, b"", b"--token=***", *words[6:]]
    assert masked([], Counter()) == []
    assert masked([b""], Counter()) == [b""]


def test_words_that_are_kept() -> None:
    words = [b"x", b"--token", b"public", b"--secret=public", b"--secret=hunter2"]
    assert masked(words, Counter(), kept=frozenset({2, 3})) == [*words[:4], b"--secret=***"]


def test_shells_inside_of_shells_end_somewhere() -> None:
    """Deeper than anybody nests them, a command line is an argument like any other."""
    line = "mysql -phunter2"
    for _ in range(DEPTH):
        line = shlex.join(["sh", "-c", line])
    assert "hunter2" not in " ".join(run(line)[0])
    assert "hunter2" in " ".join(run(shlex.join(["sh", "-c", line]))[0])


def test_what_was_masked_is_counted() -> None:
    counts = run(f"curl -u a:b -H 'Authorization: x' --token=c A_TOKEN=d --password e https://f:g@h/?token=i {GITHUB}")[1]
    assert counts == {"program": 1, "header": 1, "assignment": 1, "variable": 1, "option": 1, "url": 1, "url_parameter": 1, "github": 1}


HOSTILE: tuple[bytes, ...] = (
    *(b"a", b"_", b"\0", b"@", b":", b"-\0", b"=", b"%", b"'", b'"', b"\\", b"`", b"$(", b" = '", b":/a:", b"://", b"/a:b@", b"a:", b"&;"),
    *(b"password", b"password=", b"password:", b"pass.word=", b"--password\0", b"-p\0", b"token['", b'"token":"', b"token=&", b"set\0", b"config\0"),
    *(b"eyJ", b"-eyJ", b"eyJ.", b"sk-", b"ghp_", b"bearer=", b"bearer ", b" authorization:", b" x-token: ", b"-H\0", b"a@tcp(", b"=a:"),
    *(b"-----BEGIN PRIVATE KEY-----", b"-----BEGIN ", b"sh -c ", b"sh\0-c\0", b"$(sh -c ", b'"$(', b"mysql\0", b"mysql -p;", b"curl\0-u\0", b"-b\0"),
    *(b"auth('a','", b"auth(", b"a://u:/", b"a://u:a#", b"password for ", b"password=password(", b"identified with "),
    *(b";pwd=", b"token:'a", b"/token:", b"echo a|sudo -S;", b"|echo a"),
    *(b"http\0", b"mc\0alias\0set\0", b"qpdf\0--encrypt\0", b"redis-cli\0auth\0", b"psexec.py\0a/"),
    *(b"login\0", b"openssl\0passwd\0", b"nmcli\0", b"/a/b.key", b"$A", b"&a=", b"A_", b"a.b-", b"--a-"),
)
BEFORE = (b"", b"x\0", b"sh\0-c\0", b"sudo\0curl\0mysql\0htpasswd\0openssl\0vault\0docker\0nmcli\0", b"token='", b"://", b"x\0--password\0")


def spent_s(before: bytes, piece: bytes, size: int) -> float:
    """The least time that it took to go through `size` bytes."""
    words = (before + piece * (size // len(piece)))[:size].split(b"\0")
    times = []
    for _ in range(3):
        start = time.process_time()
        masked(words, Counter(), cut=True)
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_command_lines_take_time_in_proportion(piece: bytes) -> None:
    """Four times as long a line takes about four times as long; sixteen times would be what trying everything again from each place takes."""
    for before in BEFORE:
        short, long = (spent_s(before, piece, size) for size in (4096, 16384))
        assert long < 9 * short + 0.001, before


WORDS = st.lists(
    st.one_of(
        st.sampled_from([each for line, _ in SECRET for each in shlex.split(line)]).map(str.encode),
        st.sampled_from(HOSTILE).map(lambda piece: piece.replace(b"\0", b" ")),
        st.binary(max_size=20).map(lambda word: word.replace(b"\0", b"")),
    ),
    max_size=12,
)


@given(WORDS, st.booleans())
def test_whatever_is_given(words: list[bytes], cut: bool) -> None:
    counts: Counter[str] = Counter()
    after = masked(words, counts, cut=cut)
    assert len(after) == len(words)
    assert (after != words) <= bool(counts)
    hinted = any(hint in b"\0".join(words).lower() for hint in HINTS)
    assert cut or hinted or after == words, "what is changed without a hint would never have been found"


@given(WORDS, st.sampled_from([b"--password", b"--db-token", b"-secret"]), st.integers(0, 12))
def test_what_follows_an_option_is_masked_among_anything(words: list[bytes], option: bytes, place: int) -> None:
    line = [b"x", *words[:place], option, b"hunter2hunter2", *words[place:]]
    before = [word for word in words if b"hunter2hunter2" in word]
    assert not before
    assert b"hunter2hunter2" not in b"\0".join(masked(line, Counter()))
