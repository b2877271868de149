import com.huaweicloud.encryptionsdk.HuaweiConfig;
import com.huaweicloud.encryptionsdk.HuaweiCrypto;
import com.huaweicloud.encryptionsdk.keyrings.RawKeyringFactory;
import com.huaweicloud.encryptionsdk.keyrings.rawkeyring.RawKeyring;
import com.huaweicloud.encryptionsdk.model.enums.CryptoAlgorithm;
import com.huaweicloud.encryptionsdk.model.enums.KeyringTypeEnum;
import com.huaweicloud.encryptionsdk.model.request.EncryptRequest;
import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;

/** Drives the official SDK with a local key. Input: lines of operation, form, algorithm, input, output. */
public class Interop {
    public static void main(String[] args) throws Exception {
        byte[] master = HexFormat.of().parseHex(args[0]);
        Map<String, String> context = new LinkedHashMap<>();
        context.put("z", "\uff5e");
        context.put("y", "\ud83d\ude00");
        context.put("x", "");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = lines.readLine()) != null; ) {
            String[] fields = line.split("\t");
            boolean isFile = fields[1].equals("file");
            HuaweiConfig config = HuaweiConfig.builder()
                .cryptoAlgorithm(fields[2].equals("1")
                    ? CryptoAlgorithm.AES_128_GCM_NOPADDING
                    : CryptoAlgorithm.AES_256_GCM_NOPADDING)
                .build();
            RawKeyring keyring = new RawKeyringFactory().getKeyring(KeyringTypeEnum.RAW_AES.getType());
            keyring.setSymmetricKey(Collections.singletonList(master));
            HuaweiCrypto crypto = new HuaweiCrypto(config).withKeyring(keyring);
            Path input = Path.of(fields[3]);
            Path output = Path.of(fields[4]);
            boolean opens = fields[0].equals("open");
            if (isFile) {
                try (InputStream in = Files.newInputStream(input); OutputStream out = Files.newOutputStream(output)) {
                    if (opens) {
                        crypto.decrypt(in, out);
                    } else {
                        crypto.encrypt(in, out, context);
                    }
                }
            } else {
                byte[] bytes = Files.readAllBytes(input);
                Files.write(output, opens
                    ? crypto.decrypt(bytes).getResult()
                    : crypto.encrypt(new EncryptRequest(context, bytes)).getResult());
            }
        }
    }
}
