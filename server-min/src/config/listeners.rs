//! What must hold between the listeners, the certificates and who may sign in.

use super::{Config, ConfigError};

pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let (http, mqtt) = (&config.http, &config.mqtt);
    let wrong = |text: &str| Err(ConfigError::new(text));
    let has_certificate = config.tls.certificate.is_some();
    for (key, address) in [("http", http.tls_listen), ("mqtt", mqtt.tls_listen)] {
        if address.is_some() && !has_certificate {
            return wrong(&format!(
                "{key}.tls_listen: needs a certificate: set tls.certificate and tls.key"
            ));
        }
    }
    for (key, plain, tls) in
        [("http", http.listen, http.tls_listen), ("mqtt", mqtt.listen, mqtt.tls_listen)]
    {
        let is_elsewhere = key == "mqtt" && mqtt.external.is_some();
        if plain.is_none() && tls.is_none() && !is_elsewhere {
            return wrong(&format!(
                "{key}.listen: is off, and so is {key}.tls_listen; nobody could connect: set one"
            ));
        }
    }
    if mqtt.require_device_certificate
        && (config.tls.client_ca.is_none() || mqtt.tls_listen.is_none())
    {
        return wrong(
            "mqtt.require_device_certificate: no device could sign in: set mqtt.tls_listen, and \
             tls.client_ca to the authority that signs the devices' certificates",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Setting;

    fn load(settings: &[(&str, &str)]) -> Result<super::Config, String> {
        let setting = |(key, value): &(&str, &str)| Setting {
            key: (*key).into(),
            value: (*value).into(),
            source: format!("--{key}"),
        };
        let settings: Vec<Setting> = settings.iter().map(setting).collect();
        super::super::load(None, &settings).map_err(|e| e.to_string())
    }

    const CERTIFICATE: [(&str, &str); 2] = [("tls.certificate", "c.pem"), ("tls.key", "k.pem")];

    #[test]
    fn listeners_can_be_turned_off_and_are_shown_so() {
        let config = load(&[("http.listen", "off"), ("http.tls_listen", "[::]:8443")]).unwrap_err();
        assert!(config.contains("http.tls_listen: needs a certificate"), "{config}");
        let all = [&CERTIFICATE[..], &[("http.listen", "off"), ("http.tls_listen", "[::]:8443")]];
        let config = load(&all.concat()).unwrap();
        assert_eq!((config.http.listen, config.http.tls_listen.unwrap().port()), (None, 8443));
        let shown = config.describe();
        assert!(shown.contains("listen = \"off\"\ntls_listen = \"[::]:8443\""), "{shown}");
        assert!(shown.contains("listen = \"0.0.0.0:1883\"\ntls_listen = \"off\""), "{shown}");
    }

    #[test]
    fn what_would_serve_nobody_is_refused() {
        let text = load(&[("mqtt.listen", "off")]).unwrap_err();
        assert!(text.contains("mqtt.listen: is off"), "{text}");
        let certificates =
            [&CERTIFICATE[..], &[("mqtt.require_device_certificate", "true")]].concat();
        let text = load(&certificates).unwrap_err();
        assert!(text.contains("mqtt.require_device_certificate"), "{text}");
        let more = [("tls.client_ca", "ca.pem"), ("mqtt.tls_listen", "127.0.0.1:8883")];
        assert!(load(&[&certificates[..], &more].concat()).is_ok());
    }
}
