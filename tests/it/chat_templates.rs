//! Chat templates of real models against transformers' own rendering, byte for byte.
//!
//! The oracle is `render_jinja_template` of transformers 5.23 (`utils/chat_template_utils.py`) on Jinja2 3.1.6, its
//! clock set to 26 July 2024, BOS `<s>` and EOS `</s>`; recorded are length and SHA-256 of what it renders.
//!
//! Needs ../shared: the templates.

use std::collections::BTreeMap;
use std::path::Path;

use qeval::tokenizer::chat::{ChatTemplate, Message, RenderOptions, Role, SystemFolded, Thinking};
use sha2::{Digest, Sha256};

use crate::support::{entries, shared};

const FOLDER: &str = "data/llama.cpp-vocab/templates";

fn user(text: &str) -> Message {
    Message::new(Role::User, text)
}

fn system(text: &str) -> Message {
    Message::new(Role::System, text)
}

fn assistant(text: &str) -> Message {
    Message::new(Role::Assistant, text)
}

/// In the order of the columns of [`EXPECTED`], where each has two: without and with a generation prompt.
fn conversations() -> [Vec<Message>; 6] {
    let reasoned = "<think>\nlet me see\n</think>\n\nHello!";
    [
        vec![user("What is 2+2?")],
        vec![system("You are terse."), user("What is 2+2?")],
        vec![user("Hi"), assistant("Hello!"), user("And now?")],
        vec![system("Be kind."), user("Hi"), assistant(reasoned), user("And now?"), assistant("Bye")],
        vec![system("Ответь \"кратко\" & точно."), user("日本語で\n「2<3」は？ 🦀 é")],
        vec![
            system("  padded system \n"),
            user(" \tleading and trailing \u{a0}\n\n"),
            assistant("\n answer  "),
            user("more\n"),
        ],
    ]
}

/// Bytes and SHA-256 of a prompt; `None`: the template refuses.
type Prompt = Option<(usize, &'static str)>;

/// A template without any column refuses everything: it wants tools, or variables that nobody passes.
const EXPECTED: &[(&str, &[Prompt])] = &[
    ("CohereForAI-c4ai-command-r-plus-tool_use.jinja", &[]),
    (
        "CohereForAI-c4ai-command-r7b-12-2024-tool_use.jinja",
        &[
            Some((2581, "1b27fe5104dd197d5e60476b432dd01ef3ae3dbd1adfa8bafc209a2f92f112c3")),
            Some((2581, "1b27fe5104dd197d5e60476b432dd01ef3ae3dbd1adfa8bafc209a2f92f112c3")),
            Some((2798, "a89f2e27d5e36fdb3fac7266f8c74dbe29081f595e4eabedcecd784a7ea7a725")),
            Some((2798, "a89f2e27d5e36fdb3fac7266f8c74dbe29081f595e4eabedcecd784a7ea7a725")),
            Some((2738, "ebbf267e8f1233893c7d6578b1b3c990761609736646512a3de6dbedcf5a7e3d")),
            Some((2738, "ebbf267e8f1233893c7d6578b1b3c990761609736646512a3de6dbedcf5a7e3d")),
            Some((3076, "b0143a5cf4eb5424b72289d7871b00636ad260987bb96b02c32d30df9d15419f")),
            Some((3076, "b0143a5cf4eb5424b72289d7871b00636ad260987bb96b02c32d30df9d15419f")),
            Some((2849, "3e32e30ed2bc32d5bf8f2d9ba7c9a6872538da75640f31a4b14a8cfb93af85ab")),
            Some((2849, "3e32e30ed2bc32d5bf8f2d9ba7c9a6872538da75640f31a4b14a8cfb93af85ab")),
            Some((2984, "3f7a2d97091956d331d07dc357e34e92c3251e90ec4d28803408647bab652461")),
            Some((2984, "3f7a2d97091956d331d07dc357e34e92c3251e90ec4d28803408647bab652461")),
        ],
    ),
    ("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja", &[]),
    ("NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja", &[]),
    (
        "Qwen-Qwen2.5-7B-Instruct.jinja",
        &[
            Some((138, "86e65e9d4b6bb9916513761cf13df9d6ec674fb222f4e925311fde6970cf9157")),
            Some((160, "b07a2c9dc0ca62f9dc2bf36a49bf601845c0b99e6a329f0404e5f24cfc52e0b5")),
            Some((84, "3c60830cf005da5e91de8a18fa5ccb92eb651677cd91295db19b6fc2e9778505")),
            Some((106, "7053841f07ee14812d10798af0b38f79ff20c7579ca09838452cb671e7014aee")),
            Some((203, "2b70f82b8aa6d3e0a6567843fc757e9499fbbc53d31ebfc6387fde0200104b04")),
            Some((225, "14eeb5d7c47b8dedb29d06dd392905370a816cced8a32e6e601888b7a88ae8a7")),
            Some((208, "0ea7b99a5de6a3196c5dac32ca67dbd9b4f71be6a0776661e4fd7061d78aa215")),
            Some((230, "b19d3fbb37aa626561bbff261c71dd9a4002cfc9514a58b35de8d16877ee725d")),
            Some((135, "8830b63a4fc3db48cc4587cc3369e1d862d785d20a30a0bf269b2e5c437ebfec")),
            Some((157, "c263925a726aa617d3db47044af8f2650c1d12e1153208759d7b5316df69b79c")),
            Some((178, "eb26970bff5b55994b383dcc57820c23bcd25cc9c6f55ed7ac721857f3e6b717")),
            Some((200, "6f158271915a7899cf9970cb4b8d2e13350a2dd4f5b9d5054df676b209df2a83")),
        ],
    ),
    (
        "deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja",
        &[
            Some((27, "d8b4fea944f2f281c0492a5fc9d162da1b54f4a27528309bbc020f95403568fc")),
            Some((52, "4e5ab5498c3d355f72d89f59b01b423d6e9bbb29060a36d8eb0ca29aad32be2d")),
            Some((41, "b38d7a848f621cc240000f5dc55b1c6f2fd816b160d6467361d5a181dae6f324")),
            Some((66, "869f1c017936d04bef36958f3d3dbe651e9feea2bf3b7600c75ea88699d9051f")),
            Some((87, "7ae7666fcb1b400d888ac90ac1072be83906c616785c2354cea297e02701f137")),
            Some((112, "c478c811bbf99e2b5b0ad7ecd12615d80145abcc30e94b75f3251b2d52a119af")),
            Some((144, "02a6e03e8e150b083e1d93e909bd33b129d45415200bd5c1dd4fce70402e96f0")),
            Some((169, "1eba718e8392435605e797504a17adb328d8e84eef5d79dae4c67f78825072e0")),
            Some((92, "19ee6002bebae906b475f11c315f8140c7ac771b4f01a9ac01892916e9375158")),
            Some((117, "605979a6329a4a6751866b21faa9846d39cb32bd0eac60211c137eb9e98dc91c")),
            Some((130, "ce3e44f5ef80c79208fb3ad02cf3d08f5b38da268eab0a9c2b3d0f4b48fdd923")),
            Some((155, "ee121609c0f094905d205888d2fd3a77ee92930f51babf5364fed675de80b789")),
        ],
    ),
    (
        "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja",
        &[
            Some((27, "d8b4fea944f2f281c0492a5fc9d162da1b54f4a27528309bbc020f95403568fc")),
            Some((52, "4e5ab5498c3d355f72d89f59b01b423d6e9bbb29060a36d8eb0ca29aad32be2d")),
            Some((41, "b38d7a848f621cc240000f5dc55b1c6f2fd816b160d6467361d5a181dae6f324")),
            Some((66, "869f1c017936d04bef36958f3d3dbe651e9feea2bf3b7600c75ea88699d9051f")),
            Some((87, "7ae7666fcb1b400d888ac90ac1072be83906c616785c2354cea297e02701f137")),
            Some((112, "c478c811bbf99e2b5b0ad7ecd12615d80145abcc30e94b75f3251b2d52a119af")),
            Some((144, "02a6e03e8e150b083e1d93e909bd33b129d45415200bd5c1dd4fce70402e96f0")),
            Some((169, "1eba718e8392435605e797504a17adb328d8e84eef5d79dae4c67f78825072e0")),
            Some((92, "19ee6002bebae906b475f11c315f8140c7ac771b4f01a9ac01892916e9375158")),
            Some((117, "605979a6329a4a6751866b21faa9846d39cb32bd0eac60211c137eb9e98dc91c")),
            Some((130, "ce3e44f5ef80c79208fb3ad02cf3d08f5b38da268eab0a9c2b3d0f4b48fdd923")),
            Some((155, "ee121609c0f094905d205888d2fd3a77ee92930f51babf5364fed675de80b789")),
        ],
    ),
    ("fireworks-ai-llama-3-firefunction-v2.jinja", &[]),
    (
        "google-gemma-2-2b-it.jinja",
        &[
            Some((49, "ef2bb48c9497000ca4ae2b759bf3b4ffe2efc534ad176e1bd6cba0f17ba369f3")),
            Some((70, "a0f5988a97b7a5b0bacc6b4d884987f4d7615f17fcaec44a5a90c1e3951d9e70")),
            None,
            None,
            Some((122, "6d9a93fdb5568033595933b6ea4d751e034d89e37075105a8182bee00d90e117")),
            Some((143, "494d2498ace2e306f4c5a540581cab582fdaaa43690acfb8d8515a33a686d454")),
            None,
            None,
            None,
            None,
            None,
            None,
        ],
    ),
    (
        "llama-cpp-deepseek-r1.jinja",
        &[
            Some((54, "f7b31c2334ba4f3cc955bfb4e4c22694e5da2c35e5bba30ca3ea328cf7d74602")),
            Some((79, "d3c7c1dbe152982d5b363114340f8ccbc0cedb3025918ec697ebc52d09f2dddc")),
            Some((68, "84b01352e87f7254eebd3877b82d70225b0bd67ca1540cd7b766a9056f46b8aa")),
            Some((93, "c17f39153649b357513c8e6be1ea745010a5e50196d991a8671d301e5c1e1a31")),
            Some((141, "8ea226d7c0925eab62ca7d12ef7c5984b4d59e30bd375d1a8f1c96e5e3b87968")),
            Some((166, "c83499bf8502bce5a6c2c88b8c06c2d62515fddaa0b3e63e39edbf9da4ce50c5")),
            Some((198, "710a0786f6b061daffe2b412012c7bf5c08a1d65e3042ed425e0153f850af28c")),
            Some((223, "e756b2a5ac12ca4e94f6a9ee9c3b9d3c5319126d037c004ea575139d464aa52a")),
            Some((119, "2d46509f009fd3351a6fec1c8bda30adb5f03337dade01f9e2675b5bc4357888")),
            Some((144, "7ff82144264c89ae1efc5ae48caa5d7595c2602a4240aacfff3c40d67a8586e7")),
            Some((184, "04050c75130918915e32070e39aa839af8f8079102ca93bf454ba84faa8621ba")),
            Some((209, "14ee88a271c787e811252b3aa1efd08994f394c9e8f740255d1566b4f1ba2727")),
        ],
    ),
    (
        "meetkai-functionary-medium-v3.1.jinja",
        &[
            Some((161, "0d3c027ccb814aec7073894c20fde8f7d1a91dcb8a64fec19394d4f4d35c68d4")),
            Some((208, "2580abe3c2c6a39f563718a270a135ddd278c4ebc45ccdf020ea272edfd8ec13")),
            Some((229, "b4e629bfec5cc2f1fbba3b7e66953e382ae414098772a86821734f0b22cfa400")),
            Some((276, "d12b89c3f3c60863469a8c1fb808530f0bdfe1c22324f466f072fdda109ef755")),
            Some((274, "813a2ee59b75e08176e42f4d3dd215fa8bcf04688486f4d9b6bd3c51c7db3980")),
            Some((321, "21fbb755c7264de2a83015fd4e089ff437914cab1c15ef12844294f304645828")),
            Some((425, "01523519bf0badac36636ece20348b559da38155a5a742939cb3fd65bc688b6b")),
            Some((472, "506e646bafd7cda0d6fdb371741cc4c96d4f75f752cd7672479d112ac96b0c68")),
            Some((280, "c5386e11c31e71dd2d40c1abc5527e317150711c3da1b1cefd31fffd8c85df64")),
            Some((327, "1ed17231b21cfab0a6ed562067522f0347b71c059199c6aa9e75d016c1fca91a")),
            Some((371, "d096cb0354b573ea36cf7977544f47b405c06334006044e23725e14d32a34a3d")),
            Some((418, "2843c62cf6a0a1ef86fac6f985344944899728d8c91efa80294b4d260c4c0404")),
        ],
    ),
    (
        "meetkai-functionary-medium-v3.2.jinja",
        &[
            Some((506, "205f7413bf30c0d6fcbe16b860d2716a66d49b64b976328a280f8adf38485696")),
            Some((556, "a999fcad2e98bcc192a91218a23c8ebe18cc9eb7743ba4b4128a7709c0a3d2d8")),
            Some((574, "a4cb6c7694b598a6b70c9131a7f1f1c44727ae03b0da1788054ad7ddee13ae59")),
            Some((624, "aad6bc989ef526ccf5c3c7c20c84858f482154a2a3d09b5150af53e53515e44a")),
            Some((626, "9e32ff50ffd141ca64819ce4b8670233c05c738880bfb5a20494566a959e6c99")),
            Some((676, "19910a842be4c82ab46d09c763260b93dfe86da001f2ab67e3a34dd119f11f78")),
            Some((784, "ae7789be2b5224e8afaa490ce0875c51a779cfdad4b08e37d5092a53da3eaed9")),
            Some((834, "633fb9bdf852362347a74f6768f7ba757a2336beaa7e4bcb87505c21348f78de")),
            Some((625, "9de030e213d5ec017b1eb9c4523cab102e7dc51bc6cf9138b35f728205835461")),
            Some((675, "902381ec197948c4b708d53293d187e3287960c8941381273828c8addbfe598c")),
            Some((723, "52b910fda2e6a2b5d3eb7bfbc617f013a3c38f41c57855079ce866abf97986c0")),
            Some((773, "b0a41a68b2c06de838831d7fd60ca70c30af7d7d3e9d0d29043bc7e3aa903729")),
        ],
    ),
    (
        "meta-llama-Llama-3.1-8B-Instruct.jinja",
        &[
            Some((184, "7d7adcf63c16e7b601e37c04b8b4c57576d31dc3c37c0f15a39730598157141c")),
            Some((231, "4bddb984f67c79734f37690eb451748ac8055be95d0571d68e5cdf1a58588fa3")),
            Some((198, "fa3830c242e83f31ca52a39c3dd106ddad06157a660ca03f161d624e7e25d1ea")),
            Some((245, "3017f272f85276701d8c564c009a732ff1d27e1e648a582beb10d5a1b40d114b")),
            Some((297, "8e8fc514adbf2b2a40e7829e0e00c9d60727a860b24f3fa53f21cc872c8f1bb1")),
            Some((344, "3244025b909093881fd63a765740c3c517286187be7ba1d8e48bfadc98438d37")),
            Some((394, "ec7d27a0ec3f05c9f48939c8a8f23a6ec6e85dd85f4810718a5e8324d8240cb6")),
            Some((441, "799428e3863d7ccab6e0e1b6e7f5f8a1d1e9de0a41ab437865ad27cfa4bf6593")),
            Some((249, "d64ec2d9b6ab91dc9164caf5c96d835e58cc9bad202d2a631fa619987852cfea")),
            Some((296, "9adef5042598db353cde815c58a268fd9d28508748f9e8c1f4eefca305480a2a")),
            Some((324, "336c933c1376c000c62b7083ddf2c1602377a12eb7bf738eb37a8e5d8466c1a9")),
            Some((371, "8623a904e00e9ee08a0097c3a29dc772d6445702562c91125b27999564ef5a94")),
        ],
    ),
    (
        "meta-llama-Llama-3.2-3B-Instruct.jinja",
        &[
            Some((184, "7d7adcf63c16e7b601e37c04b8b4c57576d31dc3c37c0f15a39730598157141c")),
            Some((231, "4bddb984f67c79734f37690eb451748ac8055be95d0571d68e5cdf1a58588fa3")),
            Some((198, "fa3830c242e83f31ca52a39c3dd106ddad06157a660ca03f161d624e7e25d1ea")),
            Some((245, "3017f272f85276701d8c564c009a732ff1d27e1e648a582beb10d5a1b40d114b")),
            Some((297, "8e8fc514adbf2b2a40e7829e0e00c9d60727a860b24f3fa53f21cc872c8f1bb1")),
            Some((344, "3244025b909093881fd63a765740c3c517286187be7ba1d8e48bfadc98438d37")),
            Some((394, "ec7d27a0ec3f05c9f48939c8a8f23a6ec6e85dd85f4810718a5e8324d8240cb6")),
            Some((441, "799428e3863d7ccab6e0e1b6e7f5f8a1d1e9de0a41ab437865ad27cfa4bf6593")),
            Some((249, "d64ec2d9b6ab91dc9164caf5c96d835e58cc9bad202d2a631fa619987852cfea")),
            Some((296, "9adef5042598db353cde815c58a268fd9d28508748f9e8c1f4eefca305480a2a")),
            Some((324, "336c933c1376c000c62b7083ddf2c1602377a12eb7bf738eb37a8e5d8466c1a9")),
            Some((371, "8623a904e00e9ee08a0097c3a29dc772d6445702562c91125b27999564ef5a94")),
        ],
    ),
    (
        "meta-llama-Llama-3.3-70B-Instruct.jinja",
        &[
            Some((184, "7d7adcf63c16e7b601e37c04b8b4c57576d31dc3c37c0f15a39730598157141c")),
            Some((231, "4bddb984f67c79734f37690eb451748ac8055be95d0571d68e5cdf1a58588fa3")),
            Some((198, "fa3830c242e83f31ca52a39c3dd106ddad06157a660ca03f161d624e7e25d1ea")),
            Some((245, "3017f272f85276701d8c564c009a732ff1d27e1e648a582beb10d5a1b40d114b")),
            Some((297, "8e8fc514adbf2b2a40e7829e0e00c9d60727a860b24f3fa53f21cc872c8f1bb1")),
            Some((344, "3244025b909093881fd63a765740c3c517286187be7ba1d8e48bfadc98438d37")),
            Some((394, "ec7d27a0ec3f05c9f48939c8a8f23a6ec6e85dd85f4810718a5e8324d8240cb6")),
            Some((441, "799428e3863d7ccab6e0e1b6e7f5f8a1d1e9de0a41ab437865ad27cfa4bf6593")),
            Some((249, "d64ec2d9b6ab91dc9164caf5c96d835e58cc9bad202d2a631fa619987852cfea")),
            Some((296, "9adef5042598db353cde815c58a268fd9d28508748f9e8c1f4eefca305480a2a")),
            Some((324, "336c933c1376c000c62b7083ddf2c1602377a12eb7bf738eb37a8e5d8466c1a9")),
            Some((371, "8623a904e00e9ee08a0097c3a29dc772d6445702562c91125b27999564ef5a94")),
        ],
    ),
    (
        "microsoft-Phi-3.5-mini-instruct.jinja",
        &[
            Some((33, "c684777824d1d6523d3aeb8f0b9d35783939bbc0ba1ed5401df9931e45ee07da")),
            Some((43, "cac52b62459db04a51de963843bda82ed0c4bc1797244fcc8f5206091ab83ac7")),
            Some((66, "513cc31311a124ae7b32ba46f190aa32c5cb64c8df6df6bbd71b6914337dc5b0")),
            Some((76, "7e378fac46f2f1ed9ddef9896c7173bf5455044fff289f53eed1050faac72e96")),
            Some((76, "26b47562edf9ae8388149530b9d54c1952f4d2c7d361618e6d1f7942bd923d39")),
            Some((86, "9326e936b7533f4c4f7737e521b613dadad7af0af51acdae510e20405f23f74d")),
            Some((157, "cfb60f28f85c3da3f9ba92b4239baa1b4e6d0d0eee487a0422d8fd86198ff24a")),
            Some((167, "b9f56bebbb4a7aa838054a05b9437210b53d72b730900cfabdba76f54137ee62")),
            Some((117, "202df36a94aad9067207e432f8f23572022ec2bd2fad780fc1719ef0c92e303f")),
            Some((127, "a1f6ffb7e8285826216603512c4fd6b54d04a5dec348b337239d5ccc8feeb739")),
            Some((138, "3b982cbba7b21e56dc06daf69b0fbbaef5d17d16cdd9b895349a8bbf78a635a8")),
            Some((148, "1d4d890092139ab7ca0deb43dffa2c40efb4f0e1f066277581d7edc9687422ad")),
        ],
    ),
    (
        "mistralai-Mistral-Nemo-Instruct-2407.jinja",
        &[
            Some((28, "4b39829890747f45fa4e6ef29a559532d6fc0fc9ab591725738c3b8de887cd4a")),
            Some((28, "4b39829890747f45fa4e6ef29a559532d6fc0fc9ab591725738c3b8de887cd4a")),
            Some((44, "47d76f63d654654d9ac074176d6d03a051c02ef0ae0eb66186bd5b65587ee90a")),
            Some((44, "47d76f63d654654d9ac074176d6d03a051c02ef0ae0eb66186bd5b65587ee90a")),
            Some((49, "c4aae6277e34b4d0636e38b8bd4469702c7487f741203aa8a6f86a4a34f93a3e")),
            Some((49, "c4aae6277e34b4d0636e38b8bd4469702c7487f741203aa8a6f86a4a34f93a3e")),
            Some((85, "23686bfd8e329204be7c5f9062740034bb7d65bd79e2e362401d84941c1925b7")),
            Some((85, "23686bfd8e329204be7c5f9062740034bb7d65bd79e2e362401d84941c1925b7")),
            Some((95, "4635d76fab6057cc485a20e2a2ae66f346d61bb690e1adbc6d609173afa8884c")),
            Some((95, "4635d76fab6057cc485a20e2a2ae66f346d61bb690e1adbc6d609173afa8884c")),
            Some((94, "c8adce58cc47a2ce692b7c229ef752b26c75405ff1c6fccc375a6b8018fbd59a")),
            Some((94, "c8adce58cc47a2ce692b7c229ef752b26c75405ff1c6fccc375a6b8018fbd59a")),
        ],
    ),
];

fn load(path: &Path) -> ChatTemplate {
    let source = std::fs::read_to_string(path).unwrap();
    ChatTemplate::new(source, "<s>".to_owned(), "</s>".to_owned(), path.display().to_string()).unwrap()
}

fn hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_template_renders_as_transformers_renders_it() {
    let Some(folder) = shared(FOLDER) else { return };
    let expected: BTreeMap<&str, &[Prompt]> = EXPECTED.iter().copied().collect();
    let mut listed = expected.keys().copied().collect::<Vec<_>>();
    listed.push("README.md");
    listed.sort_unstable();
    let there: Vec<String> = entries(&folder)
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    // A template that is added to the folder is to be listed here.
    assert_eq!(there, listed);
    let (mut rendered, mut refused) = (0, 0);
    for (name, prompts) in expected {
        let template = load(&folder.join(name));
        for (index, (messages, prompt)) in
            conversations().iter().flat_map(|messages| [(messages, false), (messages, true)]).enumerate()
        {
            let got = template.render(messages, prompt, &RenderOptions::default());
            match (prompts.get(index).copied().flatten(), got) {
                (Some((length, hash)), Ok(text)) => {
                    assert_eq!((text.len(), hex(&text).as_str()), (length, hash), "{name} {index}: {text}");
                    rendered += 1;
                }
                (None, Err(error)) => {
                    assert!(error.to_string().contains("the chat template, line "), "{error}");
                    refused += 1;
                }
                (expected, got) => panic!("{name} {index}: {expected:?}, got {got:?}"),
            }
        }
    }
    assert_eq!((rendered, refused), (148, 56));
}

/// The same as text, so that a person can see what is compared.
#[test]
fn some_prompts_in_full() {
    let Some(folder) = shared(FOLDER) else { return };
    let facts = [
        ("google-gemma-2-2b-it", 0, "<s><start_of_turn>user\nWhat is 2+2?<end_of_turn>\n"),
        (
            "microsoft-Phi-3.5-mini-instruct",
            3,
            "<|system|>\nYou are terse.<|end|>\n<|user|>\nWhat is 2+2?<|end|>\n<|assistant|>\n",
        ),
        ("mistralai-Mistral-Nemo-Instruct-2407", 3, "<s>[INST]You are terse.\n\nWhat is 2+2?[/INST]"),
        (
            "meta-llama-Llama-3.2-3B-Instruct",
            3,
            "<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n\
             Today Date: 26 Jul 2024\n\nYou are terse.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n\
             What is 2+2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
            7,
            "<s>Be kind.<｜User｜>Hi<｜Assistant｜>\n\nHello!<｜end▁of▁sentence｜><｜User｜>And now?<｜Assistant｜>Bye\
             <｜end▁of▁sentence｜><｜Assistant｜><think>\n",
        ),
    ];
    for (name, index, expected) in facts {
        let template = load(&folder.join(format!("{name}.jinja")));
        let messages = &conversations()[index / 2];
        let text = template.render(messages, index % 2 == 1, &RenderOptions::default()).unwrap();
        assert_eq!(text, expected, "{name}");
        assert_eq!(template.starts_with_bos(&text), !name.starts_with("microsoft"), "{name}");
    }
}

#[test]
fn system_messages_find_a_place_everywhere() {
    let Some(folder) = shared(FOLDER) else { return };
    let options = RenderOptions::default();
    let [_, short, _, long, ..] = conversations();
    let gemma = load(&folder.join("google-gemma-2-2b-it.jinja"));
    let rendered = gemma.render_with_fallback(&short, true, &options).unwrap();
    let expected =
        "<s><start_of_turn>user\nYou are terse.\n\nWhat is 2+2?<end_of_turn>\n<start_of_turn>model\n";
    assert_eq!(rendered.text, expected);
    assert_eq!(rendered.system_folded, Some(SystemFolded::Refused("System role not supported".to_owned())));
    // Nemo writes it before the last message, and only if that is the user's.
    let nemo = load(&folder.join("mistralai-Mistral-Nemo-Instruct-2407.jinja"));
    let rendered = nemo.render_with_fallback(&long, false, &options).unwrap();
    assert_eq!(rendered.system_folded, Some(SystemFolded::Ignored));
    assert!(rendered.text.starts_with("<s>[INST]Be kind.\n\nHi[/INST]"), "{}", rendered.text);
    assert_eq!(nemo.render_with_fallback(&short, false, &options).unwrap().system_folded, None);
    // Everywhere else it stays where it is.
    for (name, prompts) in EXPECTED.iter().filter(|(_, prompts)| !prompts.is_empty()) {
        if prompts[3].is_some() {
            let template = load(&folder.join(name));
            let rendered = template.render_with_fallback(&short, true, &options).unwrap();
            assert_eq!(rendered.system_folded, None, "{name}");
            assert_eq!(hex(&rendered.text), prompts[3].unwrap().1, "{name}");
        }
    }
}

#[test]
fn models_that_think_are_known_by_their_templates() {
    let Some(folder) = shared(FOLDER) else { return };
    let found: Vec<(&str, Thinking)> = EXPECTED
        .iter()
        .filter_map(|(name, _)| Some((*name, load(&folder.join(name)).thinking(&RenderOptions::default())?)))
        .collect();
    let opened = Thinking { open: "<think>".to_owned(), close: "</think>".to_owned(), opens_in_prompt: true };
    let expected = [
        ("deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja", opened.clone()),
        ("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja", opened.clone()),
        ("llama-cpp-deepseek-r1.jinja", opened),
    ];
    assert_eq!(found, expected);
}
